"""Native cpu backend of compute_scale."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _native
from .._scale import rule_of
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None if backend == "cpu" else f"{op} has no {backend} kernel"


def compute_scale_cpu(w: Any, grid: Grid, rule: str, shape: tuple[int, ...], out: Any) -> Any:
    kind = _array.kind(w) or "torch"
    result = _array.empty(shape, "float32", kind) if out is None else out
    kept: list[Any] = []  # copies must outlive the launch
    scales = prod(shape)
    status = _native.cpu().compute_scale(
        _array.address(w, kept),
        _array.pointer(result),
        scales,
        prod(w.shape) // scales,
        *rule_of(grid, rule),
        _array.threads(),
    )
    _native.raise_on("compute_scale", "_cpu", status)
    return result
