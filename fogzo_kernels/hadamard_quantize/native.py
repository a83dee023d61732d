"""Native backends of hadamard_quantize: cpu and cuda."""

from __future__ import annotations

from typing import Any

from .. import _array, _native
from .._check import View
from .._scale import multiple
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def hadamard_quantize_cpu(w: Any, grid: Grid, form: str, view: View, out: Any) -> tuple[Any, Any]:
    return _run(_native.on_cpu(), w, grid, form, view, out)


def hadamard_quantize_cuda(w: Any, grid: Grid, form: str, view: View, out: Any) -> tuple[Any, Any]:
    with _native.on_cuda(w.device) as at:
        return _run(at, w, grid, form, view, out)


def _run(at: _native.Place, w: Any, grid: Grid, form: str, view: View, out: Any) -> tuple[Any, Any]:
    values = form == "values"
    result, scale = out or (None, None)
    if result is None:
        result = _array.empty(view.shape, "float32" if values else "uint8", view.kind, at.device)
    if scale is None:
        scale = _array.empty((view.rows, 1), "float32", view.kind, at.device)
    kept: list[Any] = []  # copies must outlive the launch
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
