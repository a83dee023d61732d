"""Packed codes: along the last dimension, lowest bits first, rows padded to a whole byte."""

from __future__ import annotations

import torch
from torch import Tensor


def pack(codes: Tensor, bits: int) -> Tensor:
    """uint8 [..., K] -> uint8 [..., ceil(K * bits / 8)]; bits is 1, 2, 4 or 8."""
    per_byte = 8 // bits
    rest = -codes.shape[-1] % per_byte
    padded = torch.nn.functional.pad(codes, (0, rest))
    size = padded.shape[-1] // per_byte
    groups = padded.reshape(*codes.shape[:-1], size, per_byte).to(torch.int64)
    shifts = torch.arange(per_byte, device=codes.device) * bits
    packed: Tensor = (groups << shifts).sum(-1).to(torch.uint8)
    return packed


def unpack(data: Tensor, bits: int, width: int) -> Tensor:
    """The inverse: uint8 [..., width]."""
    per_byte = 8 // bits
    shifts = torch.arange(per_byte, device=data.device) * bits
    codes = (data[..., None].to(torch.int64) >> shifts) & (2**bits - 1)
    flat: Tensor = codes.flatten(-2)[..., :width].to(torch.uint8)
    return flat
