"""A scale from what its elements sum up to: the arithmetic of the rules, DESIGN section 2."""

from __future__ import annotations

import triton
import triton.language as tl

from .. import _scale

ROOT = tl.constexpr(_scale.ROOT)
MEAN = tl.constexpr(_scale.MEAN)
MAX = tl.constexpr(_scale.MAX)  # from here on by the largest value


@triton.jit
def row_max(most, nan):
    """float32 [R]: the largest of each row of [R, L] absolute values, NaN where ``nan`` is."""
    largest = tl.max(tl.where(nan, 0.0, most), 1)
    return tl.where(tl.max(nan.to(tl.int32), 1) > 0, float("nan"), largest)


@triton.jit
def scale_of(total, count, RULE: tl.constexpr, FACTOR: tl.constexpr, LEAST: tl.constexpr):
    """float32 scales of count elements each, from float64 sums (from MAX on: largest values)."""
    if RULE >= MAX:
        largest = total.to(tl.float32)
        a = tl.div_rn(largest, tl.full(largest.shape, FACTOR, tl.float32))
        above = (a.to(tl.int32, bitcast=True) + 1).to(tl.float32, bitcast=True)
        a = tl.where((a < float("inf")) & (RULE == MAX), above, a)
    else:
        mean = total / (tl.zeros(total.shape, tl.float64) + count)  # float64 division is exact
        factor = tl.full((), FACTOR, tl.float64)
        a = (factor * (tl.sqrt(mean) if RULE == ROOT else mean)).to(tl.float32)
    return tl.where(a < LEAST, tl.full(a.shape, LEAST, tl.float32), a)
