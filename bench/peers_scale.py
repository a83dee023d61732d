"""Peers of compute_scale and hadamard_quantize: row scales and rotated codes in stock PyTorch."""

from __future__ import annotations

import torch
from torch import Tensor

import fogzo_kernels as fk

from .peers import Call, hadamard_matrix
from .peers_grid import codes_


def fixed_multiple(grid: fk.Grid) -> float:
    """The multiple of the RMS that the fixed rule takes: the scale of +-1."""
    scale: Tensor = fk.compute_scale(torch.tensor([[1.0, -1.0]], device="cpu"), grid)
    return scale.item()


def scalers(ws: list[Tensor], grid: fk.Grid, rule: str, compiled: bool) -> dict[str, Call]:
    """The fixed or absmax scale of every row: calls by name."""
    multiple = fixed_multiple(grid)

    def fixed(w: Tensor) -> Tensor:
        return w.square().mean(1, keepdim=True).sqrt_().mul_(multiple)

    def fixed_norm(w: Tensor) -> Tensor:
        return torch.linalg.vector_norm(w, dim=1, keepdim=True).mul_(multiple / w.shape[1] ** 0.5)

    def absmax(w: Tensor) -> Tensor:
        return w.abs().amax(1, keepdim=True).div_(grid.v_max)

    def absmax_norm(w: Tensor) -> Tensor:
        return torch.linalg.vector_norm(w, float("inf"), 1, keepdim=True).div_(grid.v_max)

    plain, by_norm = (fixed, fixed_norm) if rule == "fixed" else (absmax, absmax_norm)
    calls: dict[str, Call] = {
        "eager": lambda: [plain(w) for w in ws],
        "eager, norms": lambda: [by_norm(w) for w in ws],
    }
    if compiled:
        fused = torch.compile(plain, dynamic=False)
        calls["compile"] = lambda: [fused(w) for w in ws]
    return calls


def rotated_quantizers(w: Tensor, grid: fk.Grid, bits: float, compiled: bool) -> dict[str, Call]:
    """Codes of w's rows, rotated in blocks of 128 by a matmul: calls by name."""
    matrix = hadamard_matrix(128, w.device)
    multiple, out = fixed_multiple(grid), torch.empty_like(w)

    def codes(y: Tensor) -> Tensor:
        scale = torch.linalg.vector_norm(y, dim=1, keepdim=True).mul_(multiple / y.shape[1] ** 0.5)
        return codes_(y / scale, bits).to(torch.uint8)

    def whole(w: Tensor) -> Tensor:
        return codes((w.view(-1, 128) @ matrix).view(w.shape))

    def preallocated() -> Tensor:
        torch.mm(w.view(-1, 128), matrix, out=out.view(-1, 128))
        return codes(out)

    calls: dict[str, Call] = {"eager": lambda: whole(w), "eager, preallocated": preallocated}
    if compiled:
        fused = torch.compile(whole, dynamic=False)
        calls["compile"] = lambda: fused(w)
    return calls
