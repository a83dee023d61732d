"""Native cpu and CUDA backends of probe_matmul."""

from __future__ import annotations

import contextlib
import contextvars
import os
from collections.abc import Iterator
from typing import Any, NamedTuple

from .. import _ahead, _array, _check, _convert, _native
from .._check import View
from .._types import Flips, Grid, Packed

X_TYPES = {"float32": 0, "bfloat16": 1, "int8": 2}
KERNELS = ("mma", "wgmma")  # by their numbers in csrc/include/fogzo/cuda.h
FEW_ROWS = 32  # of x, up to which auto leaves products to single warps

_FROM_ENVIRONMENT = os.environ.get("FOGZO_CUDA_MATMUL") or "auto"
_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("fogzo_matmul", default=None)


@contextlib.contextmanager
def use_kernel(name: str) -> Iterator[None]:
    """Multiply by the named CUDA kernel inside the ``with`` block, as FOGZO_CUDA_MATMUL does.

    Args:
        name: mma; wgmma, which a GPU of another compute capability than 9.0 and float32 x refuse
            with a ValueError; or auto, which is mma unless a committed row shows wgmma ahead.

    Example:
        >>> with use_kernel("wgmma"):
        ...     pass
    """
    token = _forced.set(name)
    try:
        _kernel("int8", 1)
        yield
    finally:
        _forced.reset(token)


def _kernel(dtype: str, rows: int) -> str:
    """The CUDA kernel for x of a type with so many rows."""
    name = _forced.get() or _FROM_ENVIRONMENT
    if name in KERNELS:
        return name
    _check.choice("FOGZO_CUDA_MATMUL", "value", name, (*KERNELS, "auto"))
    few = rows <= FEW_ROWS or _ahead.shown(f"probe_matmul.wgmma.{dtype}") is None
    return "mma" if few else "wgmma"


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    dtype = case[0] if case else "float32"
    return None if dtype in X_TYPES else f"it has no {dtype} x"


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
    dtype, rows = _array.dtype_name(x), x.shape[-2]
    x_sides = x.shape[0] if len(x.shape) == 3 else 1
    if isinstance(codes, Flips):
        return _flips_result(x, codes, scale, grid, bias, x_scale, view, out, x_sides, rows)
    bits, data = (codes.bits, codes.data) if isinstance(codes, Packed) else (8, codes)
    code_sides = codes.shape[0] if len(codes.shape) == 3 else 1
    if out is None:
        shape = (x_sides if code_sides == 1 else code_sides, rows, view.rows)
        out = _array.empty(shape, "float32" if dtype == "int8" else dtype, view.kind)
    # What lives as long as the call: bias as float32, and copies of strided arguments.
    kept: list[Any] = [None if bias is None else _array.float32(bias)]
    x_type, threads, cpu = X_TYPES[dtype], _array.threads(), _native.cpu()
    size = cpu.probe_matmul_workspace(
        x_sides, code_sides, rows, view.rows, view.cols, view.scale_cols, x_type, bits, threads
    )
    workspace = _array.empty((size,), "uint8", view.kind)
    status = cpu.probe_matmul(
        _array.address(x, kept),
        _native.optional("probe_matmul", "x_scale", x_scale, kept),
        _array.address(data, kept),
        _array.address(scale, kept),
        _native.optional("probe_matmul", "bias", kept[0], kept),
        _array.pointer(out),
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
    return out


def _flips_result(
    x: Any,
    codes: Flips,
    scale: Any,
    grid: Grid,
    bias: Any,
    x_scale: Any,
    view: View,
    out: Any,
    *sizes: int,
) -> Any:
    """The kernel takes and gives float32: bfloat16 is converted before and behind it."""
    x, scale = _array.contiguous(x), _array.contiguous(scale)
    x_scale = None if x_scale is None else _array.contiguous(x_scale)
    bias = None if bias is None else _array.contiguous(_array.float32(bias))
    dtype = _array.dtype_name(x)
    result = out if dtype != "bfloat16" else None
    shape = (codes.count.shape[0], x.shape[-2], view.rows)
    result = _array.empty(shape, "float32", view.kind) if result is None else result
    x = _array.float32(x) if dtype == "bfloat16" else x
    _flips(x, codes, result, scale, grid, bias, x_scale, view, *sizes)
    if dtype != "bfloat16":
        return result
    rounded = _array.empty(shape, dtype, view.kind) if out is None else out
    _convert.store(result, rounded)
    return rounded


def _flips(
    x: Any,
    flips: Flips,
    result: Any,
    scale: Any,
    grid: Grid,
    bias: Any,
    x_scale: Any,
    view: View,
    x_sides: int,
    rows: int,
) -> None:
    names = ("base", "index", "code", "count")
    arrays = [_array.contiguous(getattr(flips, name)) for name in names]
    x_type, threads = X_TYPES[_array.dtype_name(x)], _array.threads()
    size = _native.cpu().probe_matmul_flips_workspace(
        x_sides, rows, view.rows, view.cols, view.scale_cols, x_type, threads
    )
    workspace = _array.empty((size,), "uint8", view.kind)
    status = _native.cpu().probe_matmul_flips(
        _array.pointer(x),
        _native.optional("probe_matmul", "x_scale", x_scale, arrays),
        *(_array.pointer(array) for array in arrays),
        arrays[1].shape[1],
        _array.pointer(scale),
        _native.optional("probe_matmul", "bias", bias, arrays),
        _array.pointer(result),
        _array.pointer(workspace),
        size,
        x_sides,
        arrays[3].shape[0],
        rows,
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        grid.number,
        grid.code_bits,
        x_type,
        threads,
    )
    _native.raise_on("probe_matmul", "_cpu", status)


def probe_matmul_cuda(
    x: Any,
    codes: Any,
    scale: Any,
    grid: Grid,
    bias: Any,
    x_scale: Any,
    view: View,
    out: Any,
) -> Any:
    with _native.on_cuda(x.device) as at:
        return _cuda(at, x, codes, scale, grid, bias, x_scale, view, out)


def _cuda(
    at: _native.Place,
    x: Any,
    codes: Any,
    scale: Any,
    grid: Grid,
    bias: Any,
    x_scale: Any,
    view: View,
    out: Any,
) -> Any:
    dtype, rows = _array.dtype_name(x), x.shape[-2]
    x_type, x_sides = X_TYPES[dtype], x.shape[0] if len(x.shape) == 3 else 1
    weight = _weight(codes, x_sides)
    if out is None:
        shape = (weight.sides, rows, view.rows)
        out = _array.empty(shape, "float32" if dtype == "int8" else dtype, view.kind, at.device)
    # What lives as long as the call: bias as float32, and copies of strided arguments.
    kept: list[Any] = [None if bias is None else _array.float32(bias)]
    x_at, arrays = _array.address(x, kept), [_array.address(a, kept) for a in weight.arrays]
    kernel = KERNELS.index(_kernel(dtype, rows))
    kind = (grid.number, grid.code_bits, *weight.bits, x_type, kernel)
    sizes = (rows, view.rows, view.cols)
    size = getattr(at.module, f"{weight.name}_workspace")(
        x_at, arrays[0], x_sides, *weight.code_sides, *sizes, view.scale_cols, *kind
    )
    workspace = _native.workspace(at, size)
    status = getattr(at.module, weight.name)(
        x_at,
        _native.optional("probe_matmul", "x_scale", x_scale, kept),
        *arrays,
        *weight.capacity,
        _array.address(scale, kept),
        _native.optional("probe_matmul", "bias", kept[0], kept),
        _array.pointer(out),
        _array.pointer(workspace),
        size,
        x_sides,
        *(weight.code_sides or (weight.sides,)),
        *sizes,
        view.scale_rows,
        view.scale_cols,
        *kind,
        at.last,
    )
    _native.raise_on("probe_matmul", at.name, status)
    return out


class _Weight(NamedTuple):
    """The codes as the launchers of dense and of flipped weights take them."""

    name: str
    sides: int  # of the result
    arrays: tuple[Any, ...]
    bits: tuple[int, ...]  # stored, of dense ones
    code_sides: tuple[int, ...]  # of dense ones
    capacity: tuple[int, ...]  # of flips


def _weight(codes: Any, x_sides: int) -> _Weight:
    if isinstance(codes, Flips):
        arrays = (codes.base, codes.index, codes.code, codes.count)
        sides = codes.count.shape[0]
        return _Weight("probe_matmul_flips", sides, arrays, (), (), (codes.index.shape[1],))
    bits, data = (codes.bits, codes.data) if isinstance(codes, Packed) else (8, codes)
    code_sides = codes.shape[0] if len(codes.shape) == 3 else 1
    sides = x_sides if code_sides == 1 else code_sides
    return _Weight("probe_matmul", sides, (data,), (bits,), (code_sides,), ())
