"""Triton backend of quantize_activation: several rows a program, equal bits."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import Case, Kernel
from .._triton.scale import row_max


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
    largest = row_max(most, nan)
    a = tl.div_rn(largest, tl.full(largest.shape, Q, tl.float32))
    tl.store(x_scale + row, a, mask=row < rows)
    store_codes(codes, part, a, at, inside, Q)
    if not WHOLE:
        for begin in range(WIDTH, width, WIDTH):
            more = there & (begin + k < width)[None, :]
            other = tl.load(x + begin + at, mask=more, other=0).to(tl.float32)
            store_codes(codes, other, a, begin + at, more, Q)


@triton.jit
def sign_activation_kernel(x, codes, x_scale, rows, width, WIDTH: tl.constexpr, SIZE: tl.constexpr):
    """SIZE / WIDTH rows at 1 bit: x_scale = mean abs x, summed in float64; codes = the signs."""
    row = tl.program_id(0).to(tl.int64) * (SIZE // WIDTH) + tl.arange(0, SIZE // WIDTH)
    k = tl.arange(0, WIDTH)
    at = row[:, None] * width + k[None, :]
    there = (row < rows)[:, None]
    sums = tl.zeros((SIZE // WIDTH, WIDTH), tl.float64)
    for begin in range(0, width, WIDTH):
        inside = there & (begin + k < width)[None, :]
        part = tl.load(x + begin + at, mask=inside, other=0).to(tl.float32)
        sums += tl.abs(part).to(tl.float64)
        signs = tl.where(part >= 0, 1, tl.where(part < 0, -1, 0))  # 0 for NaN
        tl.store(codes + begin + at, signs.to(tl.int8), mask=inside)
    count = tl.full((SIZE // WIDTH,), 1, tl.float64) * tl.maximum(width, 1)
    tl.store(x_scale + row, (tl.sum(sums, 1) / count).to(tl.float32), mask=row < rows)


def quantize_activation(
    x: Tensor, bits: int, out: tuple[Tensor, Tensor] | None
) -> tuple[Tensor, Tensor]:
    x = x.contiguous()
    codes, x_scale = out or (
        torch.empty_like(x, dtype=torch.int8),
        torch.empty(x.shape[:-1], dtype=torch.float32, device=x.device),
    )
    rows, width = x_scale.numel(), x.shape[-1]
    kernel = SIGNS if bits == 1 else ROWS
    size = kernel.pick(x.device).blocks["SIZE"]
    reach = min(size, triton.next_power_of_2(max(width, 1)))
    more = {} if bits == 1 else {"Q": 2 ** (bits - 1) - 1, "WHOLE": width <= reach}
    kernel.launch(
        x.device, -(-rows * reach // size), x=x, codes=codes, x_scale=x_scale, rows=rows,
        width=width, WIDTH=reach, **more,
    )  # fmt: skip
    return codes, x_scale


def _case(dtype: str, about: str, width: int, **constexprs: Any) -> Case:
    types = {"x": f"*{dtype}", "codes": "*i8", "x_scale": "*fp32", "rows": "i32", "width": "i32"}
    aligned = ("x", "codes", "x_scale", "width")
    return Case(f"{dtype} rows of {about}", types, {"WIDTH": width, **constexprs}, aligned)


ROWS = Kernel(
    "quantize_activation",
    quantize_activation_kernel,
    tuple(
        _case(dtype, about, width, Q=127, WHOLE=whole)
        for dtype in ("fp32", "bf16")
        for about, width, whole in (("1024", 1024, True), ("any width", 2048, False))
    ),
)
SIGNS = Kernel(
    "quantize_activation.sign",
    sign_activation_kernel,
    tuple(_case(dtype, "any width", 2048) for dtype in ("fp32", "bf16")),
)
KERNELS = (ROWS, SIGNS)
