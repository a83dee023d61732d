"""Native cpu and CUDA backends of probe_matmul."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import os
from collections.abc import Callable, Iterator
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


def prepare_probe_matmul(
    view: View,
    grid: Grid,
    dtype: str,
    shape: tuple[int, int, int],
    x_sides: int,
    code_sides: int,
    bits: int | None,
) -> Callable[..., Any]:
    """The cpu launch; shape: the result's, bits: the stored ones of dense codes, None of Flips."""
    flips, cpu = bits is None, _native.cpu()
    half = flips and dtype == "bfloat16"  # for Flips converted before and behind the kernel
    x_type, (sides, rows, _) = X_TYPES["float32" if half else dtype], shape
    name = "probe_matmul_flips" if flips else "probe_matmul"
    launcher, needed = getattr(cpu, name), getattr(cpu, f"{name}_workspace")
    arrays = _flips_at if flips else _codes_at
    new = _array.maker(shape, dtype if dtype == "bfloat16" and not half else "float32", view.kind)
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)
    stored = () if flips else (code_sides,)
    settled = (
        *(x_sides, sides if flips else code_sides, rows),
        *view.sizes,
        *(grid.number, grid.code_bits, *(() if flips else (bits,)), x_type),
    )

    @functools.cache
    def workspace(threads: int) -> tuple[int, Callable[[], Any]]:
        sizes = (x_sides, *stored, rows, view.rows, view.cols, view.scale_cols, x_type)
        size = needed(*sizes, *(() if flips else (bits,)), threads)
        return size, _array.maker((size,), "uint8", view.kind)

    def launch(x: Any, codes: Any, scale: Any, bias: Any, x_scale: Any, out: Any) -> Any:
        result = new() if out is None or half else out
        # What lives as long as the call: bias and x as float32, and copies of strided arguments.
        kept: list[Any] = [None if bias is None else _array.float32(bias)]
        kept.append(_array.float32(x) if half else x)
        threads = _array.threads()
        size, space = workspace(threads)
        memory = space()
        status = launcher(
            address(kept[1], kept),
            _native.optional("probe_matmul", "x_scale", x_scale, kept),
            *arrays(codes, kept),
            address(scale, kept),
            _native.optional("probe_matmul", "bias", kept[0], kept),
            pointer(result),
            pointer(memory),
            size,
            *settled,
            threads,
        )
        if status:
            _native.raise_on("probe_matmul", "_cpu", status)
        if not half:
            return result
        rounded = _array.empty(shape, dtype, view.kind) if out is None else out
        _convert.store(result, rounded)
        return rounded

    return launch


def _codes_at(codes: Any, kept: list[Any]) -> tuple[int, ...]:
    return (_array.address(codes.data if isinstance(codes, Packed) else codes, kept),)


def _flips_at(flips: Flips, kept: list[Any]) -> tuple[int, ...]:
    """Addresses of the parts, and their room."""
    parts = flips.base, flips.index, flips.code, flips.count
    return *(_array.address(part, kept) for part in parts), flips.index.shape[1]


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
