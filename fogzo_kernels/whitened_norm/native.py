"""Native backends of whitened_norm: cpu and cuda."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


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


def whitened_norm_cuda(
    grads: list[Any],
    scales: list[Any],
    surrogates: list[str],
    noise: str,
    views: list[View],
    out: Any,
) -> Any:
    kept: list[Any] = []  # copies must outlive the launch
    with _native.on_cuda(grads[0].device) as at:
        result = out if out is not None else _array.empty((), "float32", "torch", at.device)
        rows = [  # the members of fogzo_tensor, csrc/include/fogzo/tensor.h
            (
                *(0, _array.address(grad, kept), _array.address(scale, kept), 0, 0),
                *view.sizes,
                *(0, view.cols, 0, 0, 0, _surrogate.number(surrogate)),
            )
            for grad, scale, surrogate, view in zip(grads, scales, surrogates, views, strict=True)
        ]
        size = at.module.whitened_norm_workspace(rows)
        parts = _native.workspace(at, size)
        status = at.module.whitened_norm(
            rows,
            _surrogate.noise_number(noise),
            _array.pointer(result),
            _array.pointer(parts),
            size,
            at.last,
        )
        _native.raise_on("whitened_norm", at.name, status)
    return result
