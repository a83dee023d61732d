"""The stages of the Hadamard rotation on flat tensors."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def stage(x, SIZE: tl.constexpr, STRIDE: tl.constexpr):
    """Each pair (p, q) of the flat x [SIZE], STRIDE apart, becomes (p + q, p - q)."""
    p, q = tl.split(tl.permute(tl.reshape(x, (SIZE // (2 * STRIDE), 2, STRIDE)), (0, 2, 1)))
    return tl.reshape(tl.permute(tl.join(p + q, p - q), (0, 2, 1)), (SIZE,))


@triton.jit
def rotate(x, SIZE: tl.constexpr, STAGES: tl.constexpr, INNER: tl.constexpr):
    """The stages of stride INNER, 2 INNER, .. on the flat x [SIZE]."""
    for number in tl.static_range(STAGES):
        x = stage(x, SIZE, INNER << number)
    return x


@triton.jit
def rotate_rows(x, column, width, STAGES: tl.constexpr, EVEN: tl.constexpr):
    """x [R, L], columns ``column`` [L] of rows of ``width``, rotated in blocks of 2^STAGES.

    L is whole blocks. A remainder r of the width (EVEN: there is none) is cut into its powers of
    two, largest first: element p of it lies in the block of the highest bit in which p and r
    differ, so that a stage of stride s takes the elements with p ^ r >= 2 s.
    """
    BLOCK: tl.constexpr = 1 << STAGES
    SIZE: tl.constexpr = x.shape[0] * x.shape[1]
    if EVEN:
        flat = rotate(tl.reshape(x, (SIZE,)), SIZE, STAGES, 1)
        result = tl.reshape(flat, x.shape) * tl.full((), BLOCK**-0.5, tl.float32)
    else:
        full = width // BLOCK * BLOCK
        differ = tl.where(column < full, BLOCK, (column - full) ^ (width - full))[None, :]
        factor = tl.full((1, x.shape[1]), 1.0, tl.float32)
        for number in tl.static_range(STAGES):
            mixed = tl.reshape(stage(tl.reshape(x, (SIZE,)), SIZE, 1 << number), x.shape)
            taken = differ >= 2 << number
            x = tl.where(taken, mixed, x)
            factor = tl.where(taken, tl.full((), (2 << number) ** -0.5, tl.float32), factor)
        result = x * factor
    return result
