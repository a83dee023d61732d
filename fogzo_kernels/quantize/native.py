"""Native cpu backend of quantize and dequantize."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native
from .._check import View
from .._types import Grid, Packed


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def quantize_cpu(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    w, scale = _array.contiguous(w), _array.contiguous(scale)
    result = out if out is not None else _array.empty(view.shape, "uint8", view.kind)
    status = _native.cpu().quantize(
        _array.pointer(w),
        _array.pointer(scale),
        _array.pointer(result),
        *view.sizes,
        grid.number,
        grid.code_bits,
        _array.threads(),
    )
    _native.raise_on("quantize", "_cpu", status)
    return result


def dequantize_cpu(codes: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    scale = _array.contiguous(scale)
    codes = _codes(codes, view) if isinstance(codes, Packed) else _array.contiguous(codes)
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind)
    status = _native.cpu().dequantize(
        _array.pointer(codes),
        _array.pointer(scale),
        _array.pointer(result),
        *view.sizes,
        grid.number,
        grid.code_bits,
        _array.threads(),
    )
    _native.raise_on("dequantize", "_cpu", status)
    return result


def _codes(packed: Packed, view: View) -> Any:
    data = _array.contiguous(packed.data)
    codes = _array.empty(view.shape, "uint8", view.kind)
    status = _native.cpu().unpack(
        _array.pointer(data),
        _array.pointer(codes),
        prod(view.shape[:-1]),
        view.shape[-1],
        packed.bits,
        _array.threads(),
    )
    _native.raise_on("dequantize", "_cpu", status)
    return codes
