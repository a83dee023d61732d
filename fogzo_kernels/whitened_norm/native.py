"""Native backends of whitened_norm: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _native, _surrogate
from .._check import View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_whitened_norm(
    views: list[View], surrogates: list[str], noise: str
) -> Callable[..., Any]:
    """The cpu launch of gradients with these views."""
    launcher, kind = _native.cpu().whitened_norm, views[0].kind
    address, pointer = _array.address_of(kind), _array.pointer_of(kind)
    new = _array.maker((), "float32", kind)
    settled = (
        [view.rows for view in views],
        [view.cols for view in views],
        [view.scale_rows for view in views],
        [view.scale_cols for view in views],
        [_surrogate.number(name) for name in surrogates],
        _surrogate.noise_number(noise),
    )

    def launch(grads: list[Any], scales: list[Any], out: Any) -> Any:
        kept: list[Any] = []  # copies must outlive the launch
        result = new() if out is None else out
        status = launcher(
            [address(grad, kept) for grad in grads],
            [address(scale, kept) for scale in scales],
            *settled,
            pointer(result),
            _array.threads(),
        )
        if status:
            _native.raise_on("whitened_norm", "_cpu", status)
        return result

    return launch


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
