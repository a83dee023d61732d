"""Native backends of fake_quantize and its backward pass: cpu and cuda."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from .. import _array, _native, _surrogate
from .._check import View
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_fake_quantize(view: View, grid: Grid) -> Callable[..., Any]:
    """The cpu launch of one weight."""
    new = _array.maker(view.shape, "float32", view.kind)
    settled = *view.sizes, grid.number, grid.code_bits
    return _native.one_output("fake_quantize", view.kind, new, *settled)


def prepare_fake_quantize_backward(
    view: View,
    grid: Grid,
    surrogate: str,
    limit: float | None,
    scale_shape: tuple[int, ...] | None,
) -> Callable[..., tuple[Any, Any]]:
    """The cpu launch of one weight; scale_shape: of the scale's gradient, where it is wanted."""
    launcher = _native.cpu().fake_quantize_backward
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)
    new = _array.maker(view.shape, "float32", view.kind)
    new_scale = None
    if scale_shape is not None:
        new_scale = _array.maker(scale_shape, "float32", view.kind)
        if view.rows * view.cols == 0:  # no element, no sum
            new_scale = functools.partial(_array.zeros, scale_shape, "float32", view.kind)
    settled = (
        *view.sizes,
        grid.number,
        grid.code_bits,
        _surrogate.number(surrogate),
        limit or 0.0,
    )

    def launch(grad: Any, w: Any, scale: Any, out: Any) -> tuple[Any, Any]:
        kept: list[Any] = []  # copies must outlive the launch
        result = new() if out is None else out
        grad_scale = None if new_scale is None else new_scale()
        status = launcher(
            address(grad, kept),
            address(w, kept),
            address(scale, kept),
            pointer(result),
            0 if grad_scale is None else pointer(grad_scale),
            *settled,
            _array.threads(),
        )
        if status:
            _native.raise_on("fake_quantize_backward", "_cpu", status)
        return result, grad_scale

    return launch


def fake_quantize_cuda(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    settled = *view.sizes, grid.number, grid.code_bits
    given = "fake_quantize", out, view.shape, "float32", (w, scale)
    return _native.one_output_cuda(*given, *settled)


def fake_quantize_backward_cuda(
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
    with _native.on_cuda(grad.device) as at:
        result = out[0] if out is not None else None
        if result is None:
            result = _array.empty(view.shape, "float32", view.kind, at.device)
        grad_scale, size = None, 0
        if needs_scale_grad:
            make = _array.empty if view.rows * view.cols else _array.zeros  # no element, no sum
            grad_scale = make(tuple(scale.shape), "float32", view.kind, at.device)
            size = at.module.fake_quantize_backward_workspace(*view.sizes)
        parts = _native.workspace(at, size)
        status = at.module.fake_quantize_backward(
            _array.address(grad, kept),
            _array.address(w, kept),
            _array.address(scale, kept),
            _array.pointer(result),
            0 if grad_scale is None else _array.pointer(grad_scale),
            _array.pointer(parts),
            size,
            *view.sizes,
            grid.number,
            grid.code_bits,
            _surrogate.number(surrogate),
            limit or 0.0,
            at.last,
        )
        _native.raise_on("fake_quantize_backward", at.name, status)
    return result, grad_scale
