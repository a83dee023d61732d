"""Native backends of fake_quantize and its backward pass: cpu and cuda."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import View
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def fake_quantize_cpu(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    return _forward(_native.on_cpu(), w, scale, grid, view, out)


def fake_quantize_cuda(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    with _native.on_cuda(w.device) as at:
        return _forward(at, w, scale, grid, view, out)


def fake_quantize_backward_cpu(grad: Any, **call: Any) -> tuple[Any, Any]:
    return _backward(_native.on_cpu(), grad, **call)


def fake_quantize_backward_cuda(grad: Any, **call: Any) -> tuple[Any, Any]:
    with _native.on_cuda(grad.device) as at:
        return _backward(at, grad, **call)


def _forward(at: _native.Place, w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    kept: list[Any] = []  # copies must outlive the launch
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind, at.device)
    status = at.module.fake_quantize(
        _array.address(w, kept),
        _array.address(scale, kept),
        _array.pointer(result),
        *view.sizes,
        grid.number,
        grid.code_bits,
        at.last,
    )
    _native.raise_on("fake_quantize", at.name, status)
    return result


def _backward(
    at: _native.Place,
    grad: Any,
    w: Any,
    scale: Any,
    grid: Grid,
    surrogate: str,
    needs_scale_grad: bool,
    view: View,
    out: Any,
    limit: float | None = None,
) -> tuple[Any, Any]:
    kept: list[Any] = []  # copies must outlive the launch
    result = out[0] if out is not None else None
    if result is None:
        result = _array.empty(view.shape, "float32", view.kind, at.device)
    grad_scale = None
    if needs_scale_grad:
        make = _array.empty if view.rows * view.cols else _array.zeros  # no element, no sum
        grad_scale = make(tuple(scale.shape), "float32", view.kind, at.device)
    workspace: tuple[int, ...] = ()
    if at.name == "_cuda":
        size = at.module.fake_quantize_backward_workspace(*view.sizes) if needs_scale_grad else 0
        kept.append(_native.workspace(at, size))
        workspace = (_array.pointer(kept[0]), size)
    status = at.module.fake_quantize_backward(
        _array.address(grad, kept),
        _array.address(w, kept),
        _array.address(scale, kept),
        _array.pointer(result),
        0 if grad_scale is None else _array.pointer(grad_scale),
        *workspace,
        *view.sizes,
        grid.number,
        grid.code_bits,
        _surrogate.number(surrogate),
        limit or 0.0,
        at.last,
    )
    _native.raise_on("fake_quantize_backward", at.name, status)
    return result, grad_scale
