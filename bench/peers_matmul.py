"""Peers of probe_matmul: stock PyTorch's products with float32, unpacked and 8-bit weights."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

import fogzo_kernels


def linears(x: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    """float32 products with dequantized weights, by name: as nn.Linear does, and preallocated."""
    out, transposed = torch.empty(len(x), len(weight)), weight.t().contiguous()
    return {
        "float32 linear": lambda: F.linear(x, weight),
        "float32 mm, preallocated": lambda: torch.mm(x, transposed, out=out),
    }


def _prepacked(codes: Tensor, scale: Tensor, grid: fogzo_kernels.Grid) -> Any:
    """The same weights for the engine in force: int8 of twice the value where that fits, else of
    its floor."""
    factor = 2 if grid.levels <= 64 else 1
    values = (codes.double() + grid.v_min) * factor
    zeros = torch.zeros(len(codes), dtype=torch.long)
    integers = torch.quantize_per_channel(
        (values.floor() * scale / factor).float(), scale.flatten() / factor, zeros, 0, torch.qint8
    )
    return torch.ops.quantized.linear_prepack(integers, None)


def quantized_linear(
    engine: str,
    x8: Tensor,
    x_scale: float,
    codes: Tensor,
    scale: Tensor,
    grid: fogzo_kernels.Grid,
    wanted: Tensor,
) -> Callable[[], Tensor]:
    """u8s8 linear of fbgemm or onednn: weights packed, activations quantized beforehand.

    The timed call ends at 8-bit results, the checked value is their float32.
    """
    torch.backends.quantized.engine = engine
    weight = _prepacked(codes, scale, grid)
    zero = 128
    # Pairs of products would saturate 16 bits: torch advises 7-bit activations.
    if grid.levels > 64:
        x_scale, x8, zero = 2 * x_scale, (x8.float() / 2).round(), 64
    given = torch.quantize_per_tensor(x8 * x_scale, x_scale, zero, torch.quint8)
    step = wanted.abs().max().item() / 127
    return lambda: torch.ops.quantized.linear(given, weight, step, 128)


def fbgemm_dynamic(
    x: Tensor, codes: Tensor, scale: Tensor, grid: fogzo_kernels.Grid
) -> Callable[[], Tensor]:
    """fbgemm's linear that quantizes float32 activations itself, one scale for all rows."""
    torch.backends.quantized.engine = "fbgemm"
    weight = _prepacked(codes, scale, grid)
    return lambda: torch.ops.quantized.linear_dynamic(x, weight, False)


def unpacked_linear(x: Tensor, data: Tensor, scale: Tensor) -> Callable[[], Tensor]:
    """2-bit mid-rise codes unpacked to float32 and multiplied, in eager torch."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)

    def call() -> Tensor:
        codes = (data[..., None] >> shifts).bitwise_and_(3).flatten(-2)
        return F.linear(x, codes.float().sub_(1.5).mul_(scale))

    return call
