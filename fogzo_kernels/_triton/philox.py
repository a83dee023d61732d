"""Philox4x32 with 7 rounds (Salmon et al., "Parallel random numbers", SC 2011)."""

from __future__ import annotations

import triton
import triton.language as tl

MULTIPLIER_0 = tl.constexpr(0xD2511F53)
MULTIPLIER_1 = tl.constexpr(0xCD9E8D57)
WEYL_0 = tl.constexpr(0x9E3779B9)
WEYL_1 = tl.constexpr(0xBB67AE85)
ROUNDS = tl.constexpr(7)


@triton.jit
def key_of(seed, seed_at):
    """Low and high 32 bits of the seed, an int64 scalar or (not None) a pointer to one."""
    if seed_at is not None:
        seed = tl.load(seed_at)
    seed = seed.to(tl.int64)
    return seed.to(tl.uint32), (seed >> 32).to(tl.uint32)


@triton.jit
def step_of(step, step_at):
    """The step's counter word; a step is below 2^32."""
    if step_at is not None:
        step = tl.load(step_at)
    return step.to(tl.int64).to(tl.uint32)


@triton.jit
def philox(key0, key1, block, probe, step, tensor):
    """The four uint32 words of counters (block, probe, step, tensor), all uint32."""
    c0, c1, c2, c3 = block, probe, step, tensor
    for _ in tl.static_range(ROUNDS):
        high0 = tl.umulhi(c0, tl.full(c0.shape, MULTIPLIER_0, tl.uint32))
        high1 = tl.umulhi(c2, tl.full(c2.shape, MULTIPLIER_1, tl.uint32))
        low0 = c0 * tl.full(c0.shape, MULTIPLIER_0, tl.uint32)
        low1 = c2 * tl.full(c2.shape, MULTIPLIER_1, tl.uint32)
        c0, c1, c2, c3 = high1 ^ c1 ^ key0, low1, high0 ^ c3 ^ key1, low0
        key0 = key0 + tl.full((), WEYL_0, tl.uint32)
        key1 = key1 + tl.full((), WEYL_1, tl.uint32)
    return c0, c1, c2, c3
