"""Triton backend of quantize_activation: several rows a program, equal bits."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import Case, Kernel


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


@triton.jit
def store_codes(codes, x, a, at, inside, Q: tl.constexpr):
    """codes = rne(clamp(x / a, -Q, Q)), 0 where that is NaN; adding 1.5 * 2^23 rounds to even."""
    ratio = tl.div_rn(x, tl.broadcast_to(a[:, None], x.shape))
    ratio = tl.where(ratio > Q, Q * 1.0, tl.where(ratio < -Q, -Q * 1.0, ratio))
    ratio = tl.where(ratio == ratio, ratio, 0.0)
    tl.store(codes + at, ((ratio + 12582912.0) - 12582912.0).to(tl.int8), mask=inside)


@triton.jit
def quantize_activation_kernel(x, codes, x_scale, rows, width, Q: tl.constexpr,
                               WIDTH: tl.constexpr, WHOLE: tl.constexpr,
                               SIZE: tl.constexpr):  # fmt: skip
    """SIZE / WIDTH rows: x_scale = max abs x / Q, NaN where x has one.

    WIDTH columns at a time; WHOLE: that is all, so that x is read once.
    """
    row = tl.program_id(0).to(tl.int64) * (SIZE // WIDTH) + tl.arange(0, SIZE // WIDTH)
    k = tl.arange(0, WIDTH)
    at = row[:, None] * width + k[None, :]
    there = (row < rows)[:, None]
    inside = there & (k < width)[None, :]
    part = tl.load(x + at, mask=inside, other=0).to(tl.float32)
    most, nan = tl.abs(part), part != part
    if not WHOLE:
        for begin in range(WIDTH, width, WIDTH):
            more = there & (begin + k < width)[None, :]
            other = tl.load(x + begin + at, mask=more, other=0).to(tl.float32)
            most, nan = tl.maximum(most, tl.abs(other)), nan | (other != other)
    largest = tl.max(tl.where(nan, 0.0, most), 1)
    largest = tl.where(tl.max(nan.to(tl.int32), 1) > 0, float("nan"), largest)
    a = tl.div_rn(largest, tl.full(largest.shape, Q, tl.float32))
    tl.store(x_scale + row, a, mask=row < rows)
    store_codes(codes, part, a, at, inside, Q)
    if not WHOLE:
        for begin in range(WIDTH, width, WIDTH):
            more = there & (begin + k < width)[None, :]
            other = tl.load(x + begin + at, mask=more, other=0).to(tl.float32)
            store_codes(codes, other, a, begin + at, more, Q)


def quantize_activation(
    x: Tensor, bits: int, out: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    codes, x_scale = out or (
        torch.empty_like(x, dtype=torch.int8),
        torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device),
    )
    rows, width = x_scale.numel(), x.shape[-1]
    size = ROWS.pick(x.device).blocks["SIZE"]
    reach = min(size, triton.next_power_of_2(max(width, 1)))
    ROWS.launch(
        x.device, -(-rows * reach // size), x=x, codes=codes, x_scale=x_scale, rows=rows,
        width=width, Q=2 ** (bits - 1) - 1, WIDTH=reach, WHOLE=width <= reach,
    )  # fmt: skip
    return codes, x_scale


ROWS = Kernel(
    "quantize_activation",
    quantize_activation_kernel,
    tuple(
        Case(
            f"{dtype} rows of {'1024' if whole else 'any width'}",
            {"x": f"*{dtype}", "codes": "*i8", "x_scale": "*fp32", "rows": "i32", "width": "i32"},
            {"Q": 127, "WIDTH": 1024 if whole else 2048, "WHOLE": whole},
            ("x", "codes", "x_scale", "width"),
            narrow=("x_scale",),  # a number a row
        )
        for dtype in ("fp32", "bf16")
        for whole in (True, False)
    ),
)
KERNELS = (ROWS,)
