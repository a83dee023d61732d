"""The numbers of the scale rules of DESIGN section 2, without torch."""

from __future__ import annotations

import math
from typing import NamedTuple

from ._types import Grid

# Scale of the least mean squared error for a standard normal weight, by number of bits.
SIGN_MULTIPLE = 0.798
TERNARY_MULTIPLE = 1.224
MID_RISE_MULTIPLES = (0.9957, 0.5860, 0.3352, 0.1881, 0.1041, 0.05687, 0.03076)
MID_TREAD_MULTIPLES = (1.0484, 0.6018, 0.3386, 0.1888, 0.1042, 0.05689, 0.03077)
# What a kernel does: factor * sqrt(mean of squares), factor * mean of absolute values, the largest
# absolute value / factor and one nextafter upward, the same without. Also in compute_scale.cpp.
ROOT, MEAN, MAX, RANGE = range(4)
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


def mean_factor(grid: Grid) -> float:
    """The ``lsq`` rule's multiple of the mean absolute value."""
    return 1.0 if grid.kind == "sign" else 2 / math.sqrt(grid.positive_levels)


class Rule(NamedTuple):
    """One of ROOT, MEAN, MAX, RANGE, its factor, and the least scale, in the unit of the weight."""

    rule: int
    factor: float
    least: float


def rule_of(grid: Grid, rule: str) -> Rule:
    if rule == "absmax":
        return Rule(MAX, float(grid.v_max), MIN_DYNAMIC_SCALE)
    if rule == "stretched":
        return Rule(RANGE, grid.v_max + 0.5, MIN_SCALE)
    if rule == "absmean":
        return Rule(MEAN, 1.0, MIN_DYNAMIC_SCALE)
    if rule == "lsq":
        return Rule(MEAN, mean_factor(grid), MIN_SCALE)
    return Rule(ROOT, multiple(grid), MIN_SCALE)
