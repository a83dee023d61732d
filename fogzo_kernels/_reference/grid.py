"""Scales and grids: x = W * (1/a) in bins, its value and its code."""

from __future__ import annotations

import torch
from torch import Tensor

from .._types import Grid


def spread(scale: Tensor, rows: int, cols: int) -> Tensor:
    """Scale of shape (), [rows, 1] or [rows, G, 1] as [rows, cols]."""
    if scale.ndim == 3:
        scale = scale.expand(rows, scale.shape[1], cols // scale.shape[1])
    return scale.reshape(rows, cols) if scale.ndim == 3 else scale.expand(rows, cols)


def in_bins(w: Tensor, a: Tensor) -> Tensor:
    """x = W * (1/a), the same float32 number in every operation."""
    return w * torch.div(torch.ones_like(a), a)


def value(x: Tensor, grid: Grid) -> Tensor:
    """The grid's value nearest x, in bins; NaN stays NaN."""
    if grid.kind == "sign":
        one = torch.ones_like(x)
        return torch.where(x.isnan(), x, torch.where(x >= 0, one, -one))
    if grid.kind == "mid-rise":
        level = torch.round(x - 0.5)  # torch.round is half to even
        return torch.clamp(level, grid.v_min - 0.5, grid.v_max - 0.5) + 0.5
    return torch.clamp(torch.round(x), grid.v_min, grid.v_max) + 0.0  # + 0: -0 becomes +0


def code(x: Tensor, grid: Grid) -> Tensor:
    """uint8 index of value(x); NaN has code 0."""
    index = (value(x, grid) - grid.v_min) / grid.step
    return torch.where(x.isnan(), torch.zeros_like(index), index).to(torch.uint8)


def code_value(codes: Tensor, grid: Grid) -> Tensor:
    """value of a code, in bins, float32."""
    return codes.to(torch.float32) * grid.step + grid.v_min
