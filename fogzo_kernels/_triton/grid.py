"""Grids: bins x -> code 0 .. levels - 1 -> value. NaN takes code 0 on every grid."""

from __future__ import annotations

import triton
import triton.language as tl

# numbers of fogzo_kernels._types.KINDS, and one for no grid
SIGN = tl.constexpr(0)
TERNARY = tl.constexpr(1)
MID_TREAD = tl.constexpr(2)
MID_RISE = tl.constexpr(3)
NO_GRID = tl.constexpr(4)
ROUND_TO_EVEN = tl.constexpr(12582912.0)  # 1.5 * 2^23
ROUNDED_BITS = tl.constexpr(0x4B400000)  # its bits; those of the sum count up from them


@triton.jit
def code_of(x, KIND: tl.constexpr, BITS: tl.constexpr):
    """int32 code of x, float32 bins."""
    low: tl.constexpr = -1.0 if KIND <= TERNARY else -1.0 * (1 << (BITS - 1))
    high: tl.constexpr = 1.0 if KIND <= TERNARY else 1.0 * ((1 << (BITS - 1)) - 1)
    first: tl.constexpr = -1 if KIND <= TERNARY else -(1 << (BITS - 1))
    if KIND == SIGN:
        code = (x >= 0.0).to(tl.int32)
    else:
        if KIND == MID_RISE:
            x = x - 0.5
        x = tl.where(x > low, x, low)  # NaN compares false and becomes the lowest
        x = tl.where(x < high, x, high)
        code = (x + ROUND_TO_EVEN).to(tl.int32, bitcast=True) - (ROUNDED_BITS + first)
    return code


@triton.jit
def value_of(code, KIND: tl.constexpr, BITS: tl.constexpr):
    """The value of an integer code, in bins, float32: exact, and +0 for zero."""
    half: tl.constexpr = 1.0 if KIND <= TERNARY else 1.0 * (1 << (BITS - 1))
    if KIND == SIGN:
        value = code.to(tl.float32) * 2.0 - 1.0
    elif KIND == MID_RISE:
        value = code.to(tl.float32) - (half - 0.5)
    else:
        value = code.to(tl.float32) - half
    return value


@triton.jit
def v_min_of(KIND: tl.constexpr, BITS: tl.constexpr):
    """Lowest value, in bins, a float32 scalar."""
    return value_of(tl.full((), 0, tl.int32), KIND, BITS)


@triton.jit
def v_max_of(KIND: tl.constexpr, BITS: tl.constexpr):
    """Highest value, in bins, a float32 scalar."""
    last: tl.constexpr = 1 if KIND == SIGN else (2 if KIND == TERNARY else (1 << BITS) - 1)
    return value_of(tl.full((), last, tl.int32), KIND, BITS)
