"""The blockwise Hadamard rotation of the last dimension."""

from __future__ import annotations

import torch
from torch import Tensor


def rotate_blocks(x: Tensor, block: int) -> Tensor:
    if x.numel() == 0:  # of a width that may be any
        return x.clone()
    parts = x.split(block_sizes(x.shape[-1], block), dim=-1)
    return torch.cat([rotate(part) for part in parts], dim=-1)


def block_sizes(width: int, block: int) -> list[int]:
    """Full blocks, then the powers of two of the remainder, largest first."""
    rest = width % block
    powers = [1 << bit for bit in range(rest.bit_length() - 1, -1, -1) if rest >> bit & 1]
    return [block] * (width // block) + powers


def rotate(x: Tensor) -> Tensor:
    """One block of m = x.shape[-1] elements, a power of two."""
    m = x.shape[-1]
    stride = 1
    while stride < m:
        pairs = x.reshape(*x.shape[:-1], m // (2 * stride), 2, stride)
        p, q = pairs[..., 0, :], pairs[..., 1, :]
        x = torch.stack((p + q, p - q), dim=-2).reshape(x.shape)
        stride *= 2
    return x * torch.tensor(m**-0.5, dtype=torch.float32, device=x.device)
