"""Philox4x32 with 7 rounds (Salmon et al., "Parallel random numbers", SC 2011) on int64 tensors."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

ROUNDS = 7
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
MASK = 0xFFFFFFFF


def key(seed: Any) -> tuple[Any, Any]:
    """Low and high 32 bits of the seed mod 2^64 (an int, or a 0-dim int64 tensor)."""
    return seed & MASK, (seed >> 32) & MASK


def philox4x32(counter: tuple[Any, Any, Any, Any], seed: Any) -> tuple[Tensor, ...]:
    """The four 32-bit words, as int64, of each counter (ints and int64 tensors that broadcast)."""
    k0, k1 = key(seed)
    c0, c1, c2, c3 = counter
    for _ in range(ROUNDS):
        high0, low0 = multiply(MULTIPLIERS[0], c0)
        high1, low1 = multiply(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + WEYL[0]) & MASK, (k1 + WEYL[1]) & MASK
    return tuple(torch.as_tensor(word) for word in (c0, c1, c2, c3))


def multiply(a: int, b: Any) -> tuple[Any, Any]:
    """High and low 32 bits of the 64-bit product; int64 wraps, its bits are the unsigned ones."""
    product = b * a
    return (product >> 32) & MASK, product & MASK
