"""Native cpu backend of probe_matmul."""

from __future__ import annotations

from typing import Any

from .. import _array, _native
from .._check import View
from .._types import Grid, Packed

X_TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    if backend == "cuda":
        return "this release has no CUDA kernel for it"
    if case is not None and case[1] == "Flips":
        return "it does not take Flips"
    return None


def probe_matmul_cpu(
    x: Any,
    codes: Any,
    scale: Any,
    grid: Grid,
    bias: Any,
    x_scale: Any,
    view: View,
    out: Any,
) -> Any:
    bits, data, shape = 8, codes, tuple(codes.shape)
    if isinstance(codes, Packed):
        bits, data = codes.bits, codes.data
    x, data, scale = (_array.contiguous(a) for a in (x, data, scale))
    x_scale = None if x_scale is None else _array.contiguous(x_scale)
    bias = None if bias is None else _array.contiguous(_array.float32(bias))
    x_type = X_TYPES[_array.dtype_name(x)]
    x_sides = x.shape[0] if len(x.shape) == 3 else 1
    code_sides = shape[0] if len(shape) == 3 else 1
    sides, rows = (x_sides if code_sides == 1 else code_sides), x.shape[-2]
    threads = _array.threads()
    result = out
    if result is None:
        dtype = "bfloat16" if x_type == 1 else "float32"
        result = _array.empty((sides, rows, view.rows), dtype, view.kind)
    size = _native.cpu().probe_matmul_workspace(
        x_sides, code_sides, rows, view.rows, view.cols, view.scale_cols, x_type, bits, threads
    )
    workspace = _array.empty((size,), "uint8", view.kind)
    status = _native.cpu().probe_matmul(
        _array.pointer(x),
        0 if x_scale is None else _array.pointer(x_scale),
        _array.pointer(data),
        _array.pointer(scale),
        0 if bias is None else _array.pointer(bias),
        _array.pointer(result),
        _array.pointer(workspace),
        size,
        x_sides,
        code_sides,
        rows,
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        grid.number,
        grid.code_bits,
        bits,
        x_type,
        threads,
    )
    _native.raise_on("probe_matmul", "_cpu", status)
    return result
