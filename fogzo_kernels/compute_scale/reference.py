"""Reference of compute_scale: the specification, in plain torch."""

from __future__ import annotations

import math

from torch import Tensor

from .._reference.scale import scale_of_rows
from .._types import Grid


def compute_scale(w: Tensor, grid: Grid, rule: str, shape: tuple[int, ...]) -> Tensor:
    elements = w.reshape(math.prod(shape), -1).double()  # [scales, elements of one scale]
    return scale_of_rows(elements, grid, rule).reshape(shape)
