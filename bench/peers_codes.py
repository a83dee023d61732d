"""Peers of quantize, dequantize, pack and unpack: codes and their bytes in stock PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import peers_grid
from .peers import Call, each


def quantizers(
    ws: list[Tensor], scales: list[Tensor], compiled: bool, bits: float
) -> dict[str, Call]:
    """Codes of every weight: calls by name."""
    pairs = list(zip(ws, scales, strict=True))
    room, out = torch.empty_like(ws[0]), [torch.empty_like(w, dtype=torch.uint8) for w in ws]

    def in_place() -> list[Tensor]:
        for (w, scale), into in zip(pairs, out, strict=True):
            torch.mul(w, 1 / scale, out=room)
            into.copy_(peers_grid.codes_(room, bits))
        return out

    def one(w: Tensor, scale: Tensor) -> Tensor:
        return peers_grid.codes(w * (1 / scale), bits)

    return each(one, pairs, in_place, compiled)


def dequantizers(
    codes: list[Tensor], scales: list[Tensor], compiled: bool, grid: fk.Grid
) -> dict[str, Call]:
    """Values of every code: calls by name."""
    pairs = list(zip(codes, scales, strict=True))
    lowest, step = grid.v_min, grid.step
    out = [torch.empty_like(one, dtype=torch.float32) for one in codes]

    def values(one: Tensor, scale: Tensor) -> Tensor:
        return ((one.float() if step == 1 else one.float() * step) + lowest) * scale

    def in_place() -> list[Tensor]:
        for (one, scale), into in zip(pairs, out, strict=True):
            into.copy_(one)
            if step != 1:
                into.mul_(step)
            into.add_(lowest).mul_(scale)
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
