"""The noise contract on tiles of 1,024 element numbers: e * u of each.

A program holds T whole tiles as [8, 128 T]: row j, lane l is element
1024 (tile + l // 128) + 128 j + l % 128. So one Philox block serves the 8 rows of its lane, and
neighbouring lanes are neighbours in memory: nothing is shuffled.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .philox import philox

# numbers of fogzo_kernels._surrogate; identity, clipped and trust share the rest
HARDTANH = tl.constexpr(2)
TANH = tl.constexpr(3)
APPROX_SIGN = tl.constexpr(4)
RADEMACHER = tl.constexpr(1)


@triton.jit
def scaled_noise(
    key0,
    key1,
    tile,
    probe,
    step,
    tensor,
    table,
    SURROGATE: tl.constexpr,
    NOISE: tl.constexpr,
    RADIUS: tl.constexpr,
    LANES: tl.constexpr,
):
    """e * u in bins, float32 [8, LANES], of the T tiles from number ``tile`` on, T = 1, 2, 4 .."""
    lane = tl.arange(0, LANES).to(tl.uint32)
    row = tl.arange(0, 8)[:, None]
    tile = tile.to(tl.uint32)  # below 2^25, a multiple of T
    if NOISE == RADEMACHER:
        # The T tiles are neighbours of the 16 that share 128 blocks: drawn once for all T.
        tl.static_assert(LANES <= 512, "tiles of more than one word of a block")
        block = (tile // 16) * 128 + tl.arange(0, 128).to(tl.uint32)
        c0, c1, c2, c3 = philox(key0, key1, block, probe, step, tensor)
        part = tile % 16  # of the first tile; each has 8 of the block's 128 bits
        word = tl.where(part < 8, tl.where(part < 4, c0, c1), tl.where(part < 12, c2, c3))
        word = word >> (part % 4 * 8)
        word = tl.gather(word, (lane % 128).to(tl.int32), 0)  # a broadcast would draw them again
        bit = (word >> (lane // 128 * 8))[None, :] >> row.to(tl.uint32)
        e = tl.full((), RADIUS, tl.float32)
        eu = tl.where((bit & 1) == 1, -e, e)
    else:
        c0, c1, c2, c3 = philox(key0, key1, tile * 128 + lane, probe, step, tensor)
        low = tl.where(row < 2, c0[None, :], c1[None, :])
        high = tl.where(row < 6, c2[None, :], c3[None, :])
        word = tl.where(row < 4, low, high)
        half = (word >> ((row & 1) * 16).to(tl.uint32)) & 0xFFFF  # low half first
        odd = half.to(tl.int32) * 2 - 65535
        z = odd.to(tl.float32) * (1.0 / 65536)  # a power of two: exact
        if SURROGATE == HARDTANH:
            eu = z
        elif SURROGATE == TANH:
            magnitude = tl.load(table + ((tl.abs(odd) - 1) >> 1))
            eu = tl.where(odd < 0, -magnitude, magnitude)
        elif SURROGATE == APPROX_SIGN:
            magnitude = 1.0 - tl.sqrt_rn(1.0 - tl.abs(z))
            eu = tl.where(odd < 0, -magnitude, magnitude)
        else:
            eu = z * 0.5
    return eu
