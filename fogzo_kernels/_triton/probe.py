"""One probe's perturbation d = A * gw + B * (e u), in bins, for the two operations that need it."""

from __future__ import annotations

import triton
import triton.language as tl

from .noise import scaled_noise
from .philox import philox

WHOLE_PROBE = tl.constexpr(0xFFFFFFFF)
MIN_NORM = tl.constexpr(2.0**-100)


@triton.jit
def gamma_factors(c1, b, gamma_at, RADIUS: tl.constexpr):
    """float32(e sqrt(1 - gamma)), float32(sqrt(gamma)): in float64 where gamma is in memory."""
    if gamma_at is not None:
        gamma = tl.load(gamma_at)
        c1 = (tl.full((), RADIUS, tl.float64) * tl.sqrt(1.0 - gamma)).to(tl.float32)
        b = tl.sqrt(gamma).to(tl.float32)
    return c1, b


@triton.jit
def norm_of(norm, norm_at):
    if norm_at is not None:
        norm = tl.load(norm_at)
    return norm


@triton.jit
def gradient_factor(key0, key1, probe, step, c1, norm):
    """A = 0 where N < 2^-100, else (c1 * s) / N, s = +-1 the probe's sign; float32 scalar."""
    block = tl.full((), 0, tl.uint32)
    tensor = tl.full((), WHOLE_PROBE, tl.uint32)
    word, _, _, _ = philox(key0, key1, block, probe, step, tensor)
    signed = tl.where((word >> 31) == 1, -c1, c1)
    small = norm < MIN_NORM
    return tl.where(small, 0.0, tl.div_rn(signed, tl.where(small, 1.0, norm)))


@triton.jit
def direction(
    key0,
    key1,
    tile,
    probe,
    step,
    tensor,
    gw,
    c1,
    b,
    norm,
    atanh,
    SURROGATE: tl.constexpr,
    NOISE: tl.constexpr,
    RADIUS: tl.constexpr,
):
    """d, float32 of the shape of gw, [8, LANES]; probe an integer scalar below 2^32."""
    word = probe.to(tl.uint32)
    lanes: tl.constexpr = gw.shape[1]
    eu = scaled_noise(key0, key1, tile, word, step, tensor, atanh, SURROGATE, NOISE, RADIUS, lanes)
    return gradient_factor(key0, key1, word, step, c1, norm) * gw + b * eu
