"""Reference of hadamard_quantize: the specification, in plain torch."""

from __future__ import annotations

from torch import Tensor

from .._check import View
from .._reference.grid import code, code_value, in_bins
from .._reference.hadamard import rotate_blocks
from .._reference.scale import scale_of_rows
from .._types import Grid

BLOCK = 128


def hadamard_quantize(w: Tensor, grid: Grid, form: str, view: View) -> tuple[Tensor, Tensor]:
    rotated = rotate_blocks(w.reshape(view.rows, view.cols), BLOCK)
    a = scale_of_rows(rotated.double(), grid, "quest")[:, None]
    x = in_bins(rotated, a)
    codes = code(x, grid)
    if form == "codes":
        return codes.reshape(view.shape), a
    values = (a * code_value(codes, grid)).where(x == x, x)  # NaN stays NaN
    return values.reshape(view.shape), a
