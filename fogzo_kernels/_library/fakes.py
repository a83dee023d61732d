"""What each registered operation returns, by shape, dtype and device alone.

Arguments are checked where the operation runs: shapes here may be symbols.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from .._types import Grid


def compute_scale(
    w: Tensor, grid: str, bits: int | None, rule: str, granularity: str, group_size: int | None
) -> Tensor:
    rows, cols = (1, w.shape[0]) if w.ndim == 1 else (w.shape[0], math.prod(w.shape[1:]))
    if granularity == "tensor":
        return w.new_empty(())
    if group_size is None:
        return w.new_empty((rows, 1))
    return w.new_empty((rows, cols // group_size, 1))


def quantize(w: Tensor, scale: Tensor, grid: str, bits: int | None) -> Tensor:
    return w.new_empty(w.shape, dtype=torch.uint8)


def dequantize(
    codes: Tensor, scale: Tensor, grid: str, bits: int | None, packed_shape: list[int] | None
) -> Tensor:
    shape = codes.shape if packed_shape is None else packed_shape
    return codes.new_empty(shape, dtype=torch.float32)


def pack(codes: Tensor, bits: int) -> Tensor:
    stored = 1 << (bits - 1).bit_length()
    return codes.new_empty((*codes.shape[:-1], packed_width(codes.shape[-1], stored)))


def packed_width(width: Any, bits: int) -> Any:
    return (width * bits + 7) // 8


def unpack(data: Tensor, bits: int, shape: list[int]) -> Tensor:
    return data.new_empty(shape)


def fake_quantize(w: Tensor, scale: Tensor, grid: str, bits: int | None) -> Tensor:
    return w.new_empty(w.shape)


def fake_quantize_backward(
    grad: Tensor,
    w: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    surrogate: str,
    needs_scale_grad: bool,
    limit: float | None = None,
) -> tuple[Tensor, Tensor]:
    return w.new_empty(w.shape), scale.new_empty(scale.shape if needs_scale_grad else 0)


def whitened_norm(
    grads: list[Tensor], scales: list[Tensor], surrogates: list[str], noise: str
) -> Tensor:
    return grads[0].new_empty(())


def noise(shape: list[int], *args: Any) -> Tensor:
    return torch.empty(shape, dtype=torch.float32, device=args[-1])


def perturb_quantize(
    w: Tensor, grad: Tensor, scale: Tensor, grid: str | None, bits: int | None, *rest: Any
) -> tuple[Tensor, Tensor]:
    probes, sides, form, count_flips = rest[-4:]
    count = probes * (2 if sides == "both" else 1)
    shape = (count, *w.shape)
    if form == "packed" and grid is not None:
        shape = (*shape[:-1], packed_width(shape[-1], Grid(grid, bits).storage_bits))
    dtype = torch.float32 if form == "values" else torch.uint8
    flip_count = w.new_empty(count if count_flips else 0, dtype=torch.int64)
    return w.new_empty(shape, dtype=dtype), flip_count


def perturb_quantize_flips(w: Tensor, *rest: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    probes, sides = rest[-2:]
    count = probes * (2 if sides == "both" else 1)
    capacity = torch.library.get_ctx().new_dynamic_size()
    return (
        w.new_empty(w.shape, dtype=torch.uint8),
        w.new_empty((count, capacity), dtype=torch.int64),
        w.new_empty((count, capacity), dtype=torch.uint8),
        w.new_empty(count, dtype=torch.int64),
    )


def probe_matmul(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    bias: Tensor | None,
    x_scale: Tensor | None,
    packed_shape: list[int] | None,
) -> Tensor:
    shape = codes.shape if packed_shape is None else packed_shape
    sides = shape[0] if len(shape) == 3 else x.shape[0] if x.ndim == 3 else 1
    return x.new_empty((sides, x.shape[-2], shape[-2]), dtype=product_dtype(x))


def probe_matmul_flips(
    x: Tensor, base: Tensor, index: Tensor, code: Tensor, count: Tensor, *rest: Any
) -> Tensor:
    return x.new_empty((count.shape[0], x.shape[-2], base.shape[0]), dtype=product_dtype(x))


def product_dtype(x: Tensor) -> torch.dtype:
    return torch.float32 if x.dtype in (torch.int8, torch.float8_e4m3fn) else x.dtype


def assemble_gradient(grad: Tensor, *rest: Any) -> Tensor:
    return grad.new_empty(grad.shape)


def hadamard(x: Tensor, block: int) -> Tensor:
    return x.new_empty(x.shape)


def quantize_activation(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    codes = x.new_empty(x.shape, dtype=torch.int8)
    return codes, x.new_empty(x.shape[:-1], dtype=torch.float32)
