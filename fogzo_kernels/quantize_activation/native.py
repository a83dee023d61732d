"""Native cpu backend of quantize_activation."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def quantize_activation_cpu(x: Any, bits: int, out: Any) -> tuple[Any, Any]:
    x = _array.contiguous(_array.float32(x))
    shape, kind = tuple(x.shape), _array.kind(x) or "torch"
    codes, x_scale = out or (
        _array.empty(shape, "int8", kind),
        _array.empty(shape[:-1], "float32", kind),
    )
    status = _native.cpu().quantize_activation(
        _array.pointer(x),
        _array.pointer(codes),
        _array.pointer(x_scale),
        prod(shape[:-1]),
        shape[-1],
        bits,
        _array.threads(),
    )
    _native.raise_on("quantize_activation", "_cpu", status)
    return codes, x_scale
