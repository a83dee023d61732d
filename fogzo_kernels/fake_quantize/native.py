"""Native cpu backend of fake_quantize and its backward pass."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import View
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    if backend == "cuda":
        return "this release has no CUDA kernel for it"
    if op == "fake_quantize_backward" and case is not None:
        surrogate, _, *limit = case
        if surrogate == "tanh":
            return "it does not compute tanh"
        if limit:
            return "it takes no limit"
    return None


def fake_quantize_cpu(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    kept: list[Any] = []  # copies must outlive the launch
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind)
    status = _native.cpu().fake_quantize(
        _array.address(w, kept),
        _array.address(scale, kept),
        _array.pointer(result),
        *view.sizes,
        grid.number,
        grid.code_bits,
        _array.threads(),
    )
    _native.raise_on("fake_quantize", "_cpu", status)
    return result


def fake_quantize_backward_cpu(
    grad: Any,
    w: Any,
    scale: Any,
    grid: Grid,
    surrogate: str,
    needs_scale_grad: bool,
    view: View,
    out: Any,
) -> tuple[Any, Any]:
    kept: list[Any] = []  # copies must outlive the launch
    result = out[0] if out is not None else _array.empty(view.shape, "float32", view.kind)
    grad_scale = None
    if needs_scale_grad:
        grad_scale = _array.zeros(tuple(scale.shape), "float32", view.kind)
    status = _native.cpu().fake_quantize_backward(
        _array.address(grad, kept),
        _array.address(w, kept),
        _array.address(scale, kept),
        _array.pointer(result),
        0 if grad_scale is None else _array.pointer(grad_scale),
        *view.sizes,
        grid.number,
        grid.code_bits,
        _surrogate.number(surrogate),
        _array.threads(),
    )
    _native.raise_on("fake_quantize_backward", "_cpu", status)
    return result, grad_scale
