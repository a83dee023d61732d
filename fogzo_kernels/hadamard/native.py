"""Native cpu backend of hadamard."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def hadamard_cpu(x: Any, block: int, out: Any) -> Any:
    x = _array.contiguous(x)
    shape = tuple(x.shape)
    result = out
    if result is None:
        result = _array.empty(shape, "float32", _array.kind(x) or "torch")
    status = _native.cpu().hadamard(
        _array.pointer(x),
        _array.pointer(result),
        prod(shape[:-1]),
        shape[-1],
        block,
        _array.threads(),
    )
    _native.raise_on("hadamard", "_cpu", status)
    return result
