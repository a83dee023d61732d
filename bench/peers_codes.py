"""Peers of quantize, dequantize, pack and unpack: codes and their bytes in stock PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

from .peers import Call, each


def mid_rise_codes(w: Tensor, scale: Tensor, bits: int = 2) -> Tensor:
    """Mid-rise codes 0 .. 2^bits - 1 in uint8."""
    half = 2 ** (bits - 1)
    return ((w * (1 / scale) - 0.5).round().clamp(-half, half - 1) + half).to(torch.uint8)


def quantizers(
    ws: list[Tensor], scales: list[Tensor], compiled: bool, bits: int
) -> dict[str, Call]:
    """Codes of every weight: calls by name."""
    pairs = list(zip(ws, scales, strict=True))
    half = 2 ** (bits - 1)
    room, out = torch.empty_like(ws[0]), [torch.empty_like(w, dtype=torch.uint8) for w in ws]

    def in_place() -> list[Tensor]:
        for (w, scale), into in zip(pairs, out, strict=True):
            torch.mul(w, 1 / scale, out=room)
            into.copy_(room.sub_(0.5).round_().clamp_(-half, half - 1).add_(half))
        return out

    return each(lambda w, scale: mid_rise_codes(w, scale, bits), pairs, in_place, compiled)


def dequantizers(
    codes: list[Tensor], scales: list[Tensor], compiled: bool, bits: int
) -> dict[str, Call]:
    """Values of every code: calls by name."""
    pairs = list(zip(codes, scales, strict=True))
    lowest = 0.5 - 2 ** (bits - 1)
    out = [torch.empty_like(one, dtype=torch.float32) for one in codes]

    def values(one: Tensor, scale: Tensor) -> Tensor:
        return (one.float() + lowest) * scale

    def in_place() -> list[Tensor]:
        for (one, scale), into in zip(pairs, out, strict=True):
            into.copy_(one).add_(lowest).mul_(scale)
        return out

    return each(values, pairs, in_place, compiled)


def packers(codes: Tensor, bits: int, compiled: bool) -> dict[str, Call]:
    """Codes in as few bytes as they need, lowest bits first: calls by name."""
    each = 8 // bits

    def pack(codes: Tensor) -> Tensor:
        out = codes[..., 0::each].clone()
        for at in range(1, each):
            out |= codes[..., at::each] << (at * bits)
        return out

    calls: dict[str, Call] = {"eager": lambda: pack(codes)}
    if compiled:
        fused = torch.compile(pack, dynamic=False)
        calls["compile"] = lambda: fused(codes)
    return calls


def unpackers(data: Tensor, bits: int, compiled: bool) -> dict[str, Call]:
    """The codes inside packed bytes: calls by name."""
    shifts = torch.arange(0, 8, bits, dtype=torch.uint8)

    def unpack(data: Tensor) -> Tensor:
        return (data[..., None] >> shifts).bitwise_and_(2**bits - 1).flatten(-2)

    calls: dict[str, Call] = {"eager": lambda: unpack(data)}
    if compiled:
        fused = torch.compile(unpack, dynamic=False)
        calls["compile"] = lambda: fused(data)
    return calls
