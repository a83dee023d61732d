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
        surrogate, _ = case
        if surrogate == "tanh":
            return "it does not compute tanh"
    return None


def fake_quantize_cpu(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    w, scale = _array.contiguous(w), _array.contiguous(scale)
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind)
    status = _native.cpu().fake_quantize(
        _array.pointer(w),
        _array.pointer(scale),
        _array.pointer(result),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
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
    grad, w, scale = (_array.contiguous(a) for a in (grad, w, scale))
    result = out[0] if out is not None else _array.empty(view.shape, "float32", view.kind)
    grad_scale = None
    if needs_scale_grad:
        grad_scale = _array.zeros(tuple(scale.shape), "float32", view.kind)
    status = _native.cpu().fake_quantize_backward(
        _array.pointer(grad),
        _array.pointer(w),
        _array.pointer(scale),
        _array.pointer(result),
        0 if grad_scale is None else _array.pointer(grad_scale),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        grid.number,
        grid.code_bits,
        _surrogate.number(surrogate),
        _array.threads(),
    )
    _native.raise_on("fake_quantize_backward", "_cpu", status)
    return result, grad_scale
