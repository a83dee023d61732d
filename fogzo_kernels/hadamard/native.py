"""Native backends of hadamard: cpu and cuda."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def hadamard_cpu(x: Any, block: int, out: Any) -> Any:
    return _run(_native.on_cpu(), x, block, out)


def hadamard_cuda(x: Any, block: int, out: Any) -> Any:
    with _native.on_cuda(x.device) as at:
        return _run(at, x, block, out)


def _run(at: _native.Place, x: Any, block: int, out: Any) -> Any:
    x = _array.contiguous(x)
    shape = tuple(x.shape)
    result = out
    if result is None:
        result = _array.empty(shape, "float32", _array.kind(x) or "torch", at.device)
    status = at.module.hadamard(
        _array.pointer(x),
        _array.pointer(result),
        prod(shape[:-1]),
        shape[-1],
        block,
        at.last,
    )
    _native.raise_on("hadamard", at.name, status)
    return result
