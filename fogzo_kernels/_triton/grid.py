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
# of tanh_slope, as csrc/include/fogzo/grid.h derives them
LOWEST_EXPONENT = tl.constexpr(-87.0)
PER_LN2, LN2_HIGH = tl.constexpr(1.44269504), tl.constexpr(0.693359375)
LN2_LOW = tl.constexpr(-2.12194440e-4)


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


@triton.jit
def tanh_slope(x):
    """1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|), operation by operation as in grid.h."""
    y = -2.0 * tl.abs(x)
    shifted = y * PER_LN2 + ROUND_TO_EVEN  # n in the low bits
    n = shifted - ROUND_TO_EVEN
    r = (y - n * LN2_HIGH) - n * LN2_LOW
    power = r * (1.0 / 5040) + 1.0 / 720
    power = power * r + 1.0 / 120
    power = power * r + 1.0 / 24
    power = power * r + 1.0 / 6
    power = power * r + 0.5
    power = power * r + 1.0
    power = power * r + 1.0
    scale = ((shifted.to(tl.int32, bitcast=True) << 23) + 0x3F800000).to(tl.float32, bitcast=True)
    e = tl.where(y < LOWEST_EXPONENT, 0.0, power * scale)  # NaN stays NaN
    both = 1.0 + e
    return tl.div_rn(4.0 * e, both * both)
