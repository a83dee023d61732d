"""Reference of quantize and dequantize: the specification, in plain torch."""

from __future__ import annotations

from torch import Tensor

from .._check import View
from .._reference.grid import code, code_value, in_bins, spread
from .._reference.pack import unpack
from .._types import Grid, Packed


def quantize(w: Tensor, scale: Tensor, grid: Grid, view: View) -> Tensor:
    a = spread(scale, view.rows, view.cols)
    x = in_bins(w.reshape(view.rows, view.cols), a)
    return code(x, grid).reshape(view.shape)


def dequantize(codes: Tensor | Packed, scale: Tensor, grid: Grid, view: View) -> Tensor:
    if isinstance(codes, Packed):
        codes = unpack(codes.data, codes.bits, codes.shape[-1])
    a = spread(scale, view.rows, view.cols)
    return (a * code_value(codes.reshape(view.rows, view.cols), grid)).reshape(view.shape)
