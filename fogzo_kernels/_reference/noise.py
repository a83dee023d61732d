"""The noise contract: which random bits belong to element k, and the perturbation they give."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._surrogate import radius
from .._tables import atanh_table
from .philox import philox4x32

SIGN_TENSOR = 0xFFFFFFFF


def element_numbers(rows: int, cols: int, offset: int, row_pitch: int, device: Any) -> Tensor:
    """k = offset + r * row_pitch + c, int64 [rows, cols]."""
    if rows * cols == 0:  # the other size may be any
        return torch.empty((rows, cols), dtype=torch.int64, device=device)
    r = torch.arange(rows, dtype=torch.int64, device=device)[:, None]
    c = torch.arange(cols, dtype=torch.int64, device=device)[None, :]
    return offset + r * row_pitch + c


def scaled_noise(
    k: Tensor, surrogate: str, noise: str, seed: Any, step: Any, tensor: int, probe: int
) -> Tensor:
    """e * u in bins, float32, of the elements numbered k."""
    if noise == "rademacher":
        e = torch.tensor(radius(surrogate, noise), dtype=torch.float32, device=k.device)
        return torch.where(_sign_bit(k, seed, step, tensor, probe), -e, e)
    h = _half(k, seed, step, tensor, probe)
    odd = 2 * h + 1 - 65536  # z = odd / 65536
    z = odd.to(torch.float32) / 65536
    if surrogate == "hardtanh":
        return z
    if surrogate == "approx_sign":
        magnitude = 1 - (1 - z.abs()).double().sqrt().float()
    elif surrogate == "tanh":
        table = torch.tensor(atanh_table(), dtype=torch.float32, device=k.device)
        magnitude = table[(odd.abs() - 1) // 2]
    else:  # identity, clipped, trust
        return z / 2
    return torch.where(odd < 0, -magnitude, magnitude)


def _half(k: Tensor, seed: Any, step: Any, tensor: int, probe: int) -> Tensor:
    """The 16-bit half of element k: one block serves 8 elements, 128 apart."""
    j, i = (k % 1024) // 128, k % 128
    words = torch.stack(philox4x32(((k // 1024) * 128 + i, probe, step, tensor), seed))
    word = words.gather(0, (j // 2)[None])[0]
    return torch.where(j % 2 == 0, word & 0xFFFF, word >> 16)


def _sign_bit(k: Tensor, seed: Any, step: Any, tensor: int, probe: int) -> Tensor:
    """The rademacher bit of element k: one block serves 128 elements, 128 apart."""
    bit = (k % 16384) // 128
    words = torch.stack(philox4x32(((k // 16384) * 128 + k % 128, probe, step, tensor), seed))
    word = words.gather(0, (bit // 32)[None])[0]
    return (word >> (bit % 32)) & 1 == 1


def probe_sign(seed: Any, step: Any, probe: int, device: Any) -> Tensor:
    """s_i: -1 where word 0 of counter (0, probe, step, 0xFFFFFFFF) has its top bit set, else +1."""
    block = torch.zeros((), dtype=torch.int64, device=device)
    word = philox4x32((block, probe, step, SIGN_TENSOR), seed)[0]
    one = torch.ones((), dtype=torch.float32, device=device)
    return torch.where(word >> 31 == 1, -one, one)
