"""Native backends of quantize_activation: cpu and cuda."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native

X_TYPES = {"float32": 0, "bfloat16": 1}  # of csrc/include/fogzo/cuda.h


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def quantize_activation_cpu(x: Any, bits: int, out: Any) -> tuple[Any, Any]:
    return _run(_native.on_cpu(), _array.float32(x), bits, (), out)


def quantize_activation_cuda(x: Any, bits: int, out: Any) -> tuple[Any, Any]:
    with _native.on_cuda(x.device) as at:
        return _run(at, x, bits, (X_TYPES[_array.dtype_name(x)],), out)


def _run(
    at: _native.Place, x: Any, bits: int, x_type: tuple[int, ...], out: Any
) -> tuple[Any, Any]:
    x = _array.contiguous(x)
    shape, kind = tuple(x.shape), _array.kind(x) or "torch"
    codes, x_scale = out or (
        _array.empty(shape, "int8", kind, at.device),
        _array.empty(shape[:-1], "float32", kind, at.device),
    )
    status = at.module.quantize_activation(
        _array.pointer(x),
        _array.pointer(codes),
        _array.pointer(x_scale),
        prod(shape[:-1]),
        shape[-1],
        bits,
        *x_type,
        at.last,
    )
    _native.raise_on("quantize_activation", at.name, status)
    return codes, x_scale
