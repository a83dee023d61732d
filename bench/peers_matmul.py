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
    values = (codes.double() * grid.step + grid.v_min) * factor
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


def products(
    kind: str,
    x: Tensor,
    x_scale: Tensor | None,
    codes: Tensor,
    values: Tensor,
    scale: Tensor,
    grid: fogzo_kernels.Grid,
    compiled: bool,
) -> dict[str, Callable[[], Tensor]]:
    """torch's products of x [M, K] with both sides' weights [2, N, K], y [2, M, N]: by name.

    int8 x: sums of integers of twice the value, scaled, and bfloat16 values; float8 x: values of
    the grid, scaled; bfloat16 x: values.
    """
    sides, n, k = codes.shape
    half = (x.float() if x_scale is None else x.float() * x_scale[:, None]).bfloat16()
    batch, weights = half.expand(sides, *x.shape), values.bfloat16()
    calls: dict[str, Callable[[], Tensor]] = {
        "torch.bmm, bfloat16": lambda: torch.bmm(batch, weights.mT),
        "linear, bfloat16": lambda: F.linear(half, weights.view(sides * n, k)).view(
            len(x), sides, n
        ).transpose(0, 1),
    }  # fmt: skip
    if kind == "int8" and x_scale is not None:
        integers = ((codes.float() * grid.step + grid.v_min) * 2).to(torch.int8).view(sides * n, k)
        row, column = x_scale[:, None], (scale.view(1, n) / 2).repeat(1, sides)

        def scaled() -> Tensor:
            return torch._int_mm(x, integers.mT) * row * column

        def apart(y: Tensor) -> Tensor:
            return y.view(len(x), sides, n).transpose(0, 1)

        # Its sums alone are what is timed; multiplied by the scales they are checked.
        calls["torch._int_mm"] = _timed(
            lambda: torch._int_mm(x, integers.mT), lambda: apart(scaled())
        )
        calls["torch._int_mm, scales"] = lambda: apart(scaled())
        if compiled:
            fused = torch.compile(scaled, dynamic=False)
            calls["compile torch._int_mm, scales"] = lambda: apart(fused())
    if kind == "float8_e4m3fn":
        numbers = (codes.float() * grid.step + grid.v_min).to(x.dtype).view(sides * n, k)
        row, column = torch.ones(len(x), 1), scale.view(1, n).repeat(1, sides)
        calls["torch._scaled_mm"] = lambda: (
            torch._scaled_mm(x, numbers.mT, row, column, out_dtype=torch.bfloat16)
            .view(len(x), sides, n)
            .transpose(0, 1)
        )
    return calls


class _timed:
    """A call to time whose first result is another's, for the check."""

    def __init__(self, call: Callable[[], Tensor], first: Callable[[], Tensor]) -> None:
        self._call, self._first = call, first
        self._checked = False

    def __call__(self) -> Tensor:
        if self._checked:
            return self._call()
        self._checked = True
        return self._first()
