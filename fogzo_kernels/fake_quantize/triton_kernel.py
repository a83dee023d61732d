"""Triton kernels of fake_quantize and its backward pass, one read of each input."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch, _surrogate
from .._check import View
from .._triton import blocks
from .._triton.grid import code_of, tanh_slope, v_max_of, v_min_of, value_of
from .._types import Grid

# numbers of fogzo_kernels._surrogate
IDENTITY, CLIPPED, HARDTANH = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
TANH, APPROX_SIGN = tl.constexpr(3), tl.constexpr(4)


@triton.jit
def fake_quantize_kernel(
    w,
    scale,
    out,
    scales,
    group,
    chunks,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """a * value(x); NaN stays NaN."""
    program = tl.program_id(0).to(tl.int64)
    number, exists, first, left = blocks.block_at(
        program, scales, group, chunks, ROWS, COLS, 1, ALIGNED
    )
    column = tl.arange(0, COLS)[None, :]
    inside = exists & (column < left)  # [ROWS, COLS]
    a = tl.load(scale + number, exists, other=1.0)
    x = tl.load(w + first + column, inside, other=0.0) * blocks.inverse(a)
    value = tl.where(x != x, x, value_of(code_of(x, KIND, BITS), KIND, BITS))
    tl.store(out + first + column, a * value, inside)


@triton.jit
def fake_quantize_backward_kernel(
    grad,
    w,
    scale,
    out,
    parts,
    scales,
    group,
    chunks,
    limit,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    SURROGATE: tl.constexpr,
    WITH_SCALE: tl.constexpr,
    LIMITED: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    LOOPS: tl.constexpr,
):
    """grad * h'(x), and parts [scales, chunks]: sums of grad * t in float64.

    LIMITED: -limit <= x <= limit is inside, in place of the grid's range.
    """
    program = tl.program_id(0).to(tl.int64)
    number, exists, first, left = blocks.block_at(
        program, scales, group, chunks, ROWS, COLS, LOOPS, ALIGNED
    )
    inverse = blocks.inverse(tl.load(scale + number, exists, other=1.0))
    if LIMITED:
        low, high = -limit, limit
    else:
        low, high = v_min_of(KIND, BITS), v_max_of(KIND, BITS)
    total = tl.zeros([ROWS, COLS], tl.float64)
    for loop in range(LOOPS):
        column = loop * COLS + tl.arange(0, COLS)[None, :]
        inside = exists & (column < left)  # [ROWS, COLS]
        g = tl.load(grad + first + column, inside, other=0.0)
        x = tl.load(w + first + column, inside, other=0.0) * inverse
        value = tl.where(x != x, x, value_of(code_of(x, KIND, BITS), KIND, BITS))
        within = (x >= low) & (x <= high)
        if SURROGATE == IDENTITY:
            passed = g
        elif SURROGATE == CLIPPED:
            passed = tl.where(within, g, 0.0)
        elif SURROGATE == HARDTANH:
            passed = tl.where((x >= -1.0) & (x <= 1.0), g, 0.0)
        elif SURROGATE == TANH:
            passed = g * tanh_slope(x)
        elif SURROGATE == APPROX_SIGN:
            passed = tl.where((x >= -1.0) & (x <= 1.0), g * (2.0 - 2.0 * tl.abs(x)), 0.0)
        else:  # trust
            passed = tl.where(tl.abs(value - x) <= 0.5, g, 0.0)
        tl.store(out + first + column, passed, inside)
        if WITH_SCALE:
            slope = tl.where(within, value - x, value)
            total += tl.where(inside, g.to(tl.float64) * slope.to(tl.float64), 0.0)
    if WITH_SCALE:
        chunk = program % chunks
        tl.store(parts + number * chunks + chunk, tl.sum(total, axis=1)[:, None], exists)


@triton.jit
def scale_gradient_kernel(parts, out, chunks, divisor, BLOCK: tl.constexpr):
    """out [scales]: float32(sum of a scale's parts / sqrt(divisor)); one program a scale."""
    program = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, chunks, BLOCK):
        inside = begin + number < chunks
        total += tl.load(parts + program * chunks + begin + number, inside, other=0.0)
    root = tl.sqrt((tl.zeros([], tl.int64) + divisor).to(tl.float64))
    tl.store(out + program, (tl.sum(total) / root).to(tl.float32))  # float64 division is exact


_SIZES = {"scale": "*fp32", "scales": "i32", "group": "i32", "chunks": "i32"}
_ROWS = {"KIND": 3, "BITS": 2, "ROWS": 1, "COLS": 4096, "ALIGNED": True}
_WIDE = {"KIND": 2, "BITS": 8, "ROWS": 32, "COLS": 128, "ALIGNED": True}
_BACK = {**_SIZES, "limit": "fp32", "grad": "*fp32", "w": "*fp32", "out": "*fp32", "parts": "*fp64"}
KERNELS = (
    _launch.Kernel(
        "fake_quantize",
        fake_quantize_kernel,
        tuple(
            _launch.Case(
                name, {**_SIZES, "w": "*fp32", "out": "*fp32"}, shape, ("w", "out", "group")
            )
            for name, shape in (("channel", _ROWS), ("group of 128", _WIDE))
        ),
    ),
    _launch.Kernel(
        "fake_quantize_backward",
        fake_quantize_backward_kernel,
        tuple(
            _launch.Case(
                name,
                _BACK,
                {**shape, "SURROGATE": surrogate, "WITH_SCALE": scale, "LIMITED": limited},
                ("grad", "w", "out", "group"),
            )
            for name, shape, surrogate, scale, limited in (
                ("clipped", {**_ROWS, "COLS": 1024}, 1, False, False),
                ("clipped, scale", {**_ROWS, "COLS": 1024}, 1, True, False),
                ("trust, groups, scale", {**_WIDE, "ROWS": 8}, 5, True, False),
                ("tanh, scale", {**_ROWS, "KIND": 0, "BITS": 1, "COLS": 1024}, 3, True, False),
                ("clipped, groups, scale, limit", {**_WIDE, "ROWS": 8}, 1, True, True),
            )
        ),
    ),
    _launch.Kernel(
        "scale_gradient",
        scale_gradient_kernel,
        (
            _launch.Case(
                "total",
                {"parts": "*fp64", "out": "*fp32", "chunks": "i32", "divisor": "i64"},
                {},
                loads16=False,
            ),
        ),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def fake_quantize(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    if out is None:
        out = torch.empty(view.shape, dtype=torch.float32, device=w.device)
    if 0 in view.shape:
        return out
    kernel = KERNELS[0]
    sizes, programs = blocks.shape(view, kernel.pick(w.device).blocks["BLOCK"])
    kernel.launch(
        w.device,
        programs,
        w=_array.contiguous(w),
        scale=_array.contiguous(scale),
        out=out,
        KIND=grid.number,
        BITS=grid.code_bits,
        **sizes,
    )
    return out


def fake_quantize_backward(
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
    _, backward, total = KERNELS
    device = w.device
    result = out[0] if out is not None else None
    if result is None:
        result = torch.empty(view.shape, dtype=torch.float32, device=device)
    grad_scale = None
    if needs_scale_grad:
        grad_scale = torch.zeros(scale.shape, dtype=torch.float32, device=device)
    if 0 in view.shape:
        return result, grad_scale
    block = backward.pick(device).blocks
    sizes, programs = blocks.shape(view, block["BLOCK"], block["LOOPS"])
    parts = None
    if needs_scale_grad:
        shape = (sizes["scales"], sizes["chunks"])
        parts = torch.empty(shape, dtype=torch.float64, device=device)
    backward.launch(
        device,
        programs,
        grad=_array.contiguous(grad),
        w=_array.contiguous(w),
        scale=_array.contiguous(scale),
        out=result,
        parts=parts,
        KIND=grid.number,
        BITS=grid.code_bits,
        SURROGATE=_surrogate.number(surrogate),
        WITH_SCALE=needs_scale_grad,
        LIMITED=limit is not None,
        limit=limit or 0.0,
        **sizes,
    )
    if needs_scale_grad:
        total.launch(
            device,
            sizes["scales"],
            parts=parts,
            out=grad_scale,
            chunks=sizes["chunks"],
            divisor=w.numel() * grid.positive_levels,
        )
    return result, grad_scale
