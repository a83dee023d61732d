"""Reference of compute_scale: the specification, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._types import Grid

# Scale of the least mean squared error for a standard normal weight, by number of bits.
SIGN_MULTIPLE = 0.798
TERNARY_MULTIPLE = 1.224
MID_RISE_MULTIPLES = (0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.05687, 0.03076)
MID_TREAD_MULTIPLES = (1.0484, 0.6018, 0.3386, 0.1888, 0.1042, 0.05689, 0.03077)
MIN_SCALE = 2.0**-100
MIN_DYNAMIC_SCALE = 1e-8


def multiple(grid: Grid) -> float:
    """The ``fixed`` rule's multiple of the RMS."""
    if grid.kind == "sign":
        return SIGN_MULTIPLE
    if grid.kind == "ternary":
        return TERNARY_MULTIPLE
    table = MID_RISE_MULTIPLES if grid.kind == "mid-rise" else MID_TREAD_MULTIPLES
    return table[grid.code_bits - 2]


def compute_scale(w: Tensor, grid: Grid, rule: str, shape: tuple[int, ...]) -> Tensor:
    elements = w.reshape(math.prod(shape), -1).double()  # [scales, elements of one scale]
    if rule == "absmax":
        largest = torch.div(elements.abs().amax(1).float(), torch.tensor(grid.v_max))
        a = torch.nextafter(largest, torch.full_like(largest, math.inf))
        return a.clamp(min=MIN_DYNAMIC_SCALE).reshape(shape)
    if rule == "absmean":
        return elements.abs().mean(1).float().clamp(min=MIN_DYNAMIC_SCALE).reshape(shape)
    if rule == "lsq":
        factor = 1.0 if grid.kind == "sign" else 2 / math.sqrt(grid.positive_levels)
        a = factor * elements.abs().mean(1)
    elif rule == "stretched":
        a = elements.abs().amax(1) / (grid.v_max + 0.5)
    else:  # fixed, quest
        a = multiple(grid) * elements.square().mean(1).sqrt()
    return a.float().clamp(min=MIN_SCALE).reshape(shape)
