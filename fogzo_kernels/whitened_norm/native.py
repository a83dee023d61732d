"""Native cpu backend of whitened_norm."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def whitened_norm_cpu(
    grads: list[Any],
    scales: list[Any],
    surrogates: list[str],
    noise: str,
    views: list[View],
    out: Any,
) -> Any:
    kept: list[Any] = []  # copies must outlive the launch
    result = out if out is not None else _array.empty((), "float32", views[0].kind)
    status = _native.cpu().whitened_norm(
        [_array.address(g, kept) for g in grads],
        [_array.address(a, kept) for a in scales],
        [v.rows for v in views],
        [v.cols for v in views],
        [v.scale_rows for v in views],
        [v.scale_cols for v in views],
        [_surrogate.number(name) for name in surrogates],
        _surrogate.noise_number(noise),
        _array.pointer(result),
        _array.threads(),
    )
    _native.raise_on("whitened_norm", "_cpu", status)
    return result
