"""Native backends of hadamard_quantize: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _native
from .._check import View
from .._scale import multiple
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_hadamard_quantize(view: View, grid: Grid, dtype: str) -> Callable[..., Any]:
    """The cpu launch of one weight; dtype: of the first result."""
    launcher, values = _native.cpu().hadamard_quantize, dtype == "float32"
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)
    new = _array.maker(view.shape, dtype, view.kind)
    new_scale = _array.maker((view.rows, 1), "float32", view.kind)
    settled = view.rows, view.cols, multiple(grid), grid.number, grid.code_bits

    def launch(w: Any, result: Any, scale: Any) -> tuple[Any, Any]:
        kept: list[Any] = []  # copies must outlive the launch
        result = new() if result is None else result
        scale = new_scale() if scale is None else scale
        at = pointer(result)
        status = launcher(
            address(w, kept),
            at if values else 0,
            0 if values else at,
            pointer(scale),
            *settled,
            _array.threads(),
        )
        if status:
            _native.raise_on("hadamard_quantize", "_cpu", status)
        return result, scale

    return launch


def hadamard_quantize_cuda(w: Any, grid: Grid, form: str, view: View, out: Any) -> tuple[Any, Any]:
    kept: list[Any] = []  # copies must outlive the launch
    values = form == "values"
    result, scale = out or (None, None)
    with _native.on_cuda(w.device) as at:
        if result is None:
            dtype = "float32" if values else "uint8"
            result = _array.empty(view.shape, dtype, view.kind, at.device)
        if scale is None:
            scale = _array.empty((view.rows, 1), "float32", view.kind, at.device)
        status = at.module.hadamard_quantize(
            _array.address(w, kept),
            _array.pointer(result) if values else 0,
            0 if values else _array.pointer(result),
            _array.pointer(scale),
            view.rows,
            view.cols,
            multiple(grid),
            grid.number,
            grid.code_bits,
            at.last,
        )
        _native.raise_on("hadamard_quantize", at.name, status)
    return result, scale
