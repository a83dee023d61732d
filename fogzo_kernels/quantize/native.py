"""Native backends of quantize and dequantize: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _native
from .._check import View
from .._types import Grid, Packed


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_quantize(view: View, grid: Grid) -> Callable[..., Any]:
    """The cpu launch of one weight."""
    new = _array.maker(view.shape, "uint8", view.kind)
    settled = *view.sizes, grid.number, grid.code_bits
    return _native.one_output("quantize", view.kind, new, *settled)


def quantize_cuda(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    settled = *view.sizes, grid.number, grid.code_bits
    return _native.one_output_cuda("quantize", out, view.shape, "uint8", (w, scale), *settled)


def dequantize_cpu(codes: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    return _dequantize(_native.on_cpu(), codes, scale, grid, view, out)


def dequantize_cuda(codes: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    with _native.on_cuda(scale.device) as at:
        return _dequantize(at, codes, scale, grid, view, out)


def _dequantize(at: _native.Place, codes: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    scale = _array.contiguous(scale)
    codes = _codes(at, codes, view) if isinstance(codes, Packed) else _array.contiguous(codes)
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind, at.device)
    status = at.module.dequantize(
        _array.pointer(codes),
        _array.pointer(scale),
        _array.pointer(result),
        *view.sizes,
        grid.number,
        grid.code_bits,
        at.last,
    )
    _native.raise_on("dequantize", at.name, status)
    return result


def _codes(at: _native.Place, packed: Packed, view: View) -> Any:
    data = _array.contiguous(packed.data)
    codes = _array.empty(view.shape, "uint8", view.kind, at.device)
    status = at.module.unpack(
        _array.pointer(data),
        _array.pointer(codes),
        prod(view.shape[:-1]),
        view.shape[-1],
        packed.bits,
        at.last,
    )
    _native.raise_on("dequantize", at.name, status)
    return codes
