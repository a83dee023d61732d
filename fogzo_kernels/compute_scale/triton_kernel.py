"""Triton kernels of compute_scale: sums of parts of each scale's elements, then the scales.

The order of additions depends on the sizes alone, so that equal calls give equal bits.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch
from .._scale import MIN_DYNAMIC_SCALE, MIN_SCALE, rule_of
from .._triton import blocks
from .._triton.scale import MAX, MEAN, ROOT, row_max, scale_of
from .._types import Grid


@triton.jit
def compute_scale_kernel(
    w,
    parts,
    out,
    scales,
    group,
    chunks,
    RULE: tl.constexpr,
    FACTOR: tl.constexpr,
    LEAST: tl.constexpr,
    WHOLE: tl.constexpr,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
    LOOPS: tl.constexpr,
):
    """parts [scales, chunks]: sums in float64, or largest values; WHOLE: out [scales] at once."""
    program = tl.program_id(0).to(tl.int64)
    number, exists, first, left = blocks.block_at(
        program, scales, group, chunks, ROWS, COLS, LOOPS, ALIGNED
    )
    total = tl.zeros([ROWS, COLS], tl.float32 if RULE >= MAX else tl.float64)
    for loop in range(LOOPS):
        column = loop * COLS + tl.arange(0, COLS)[None, :]
        x = tl.abs(tl.load(w + first + column, exists & (column < left), other=0.0))
        if RULE >= MAX:  # a NaN stays
            total = tl.where((x > total) | (x != x), x, total)
        elif RULE == MEAN:
            total += x.to(tl.float64)
        else:
            total += x.to(tl.float64) * x.to(tl.float64)
    if RULE >= MAX:
        found = row_max(total, total != total).to(tl.float64)[:, None]
    else:
        found = tl.sum(total, 1)[:, None]
    if WHOLE:
        tl.store(out + number, scale_of(found, group, RULE, FACTOR, LEAST), exists)
    else:
        tl.store(parts + number * chunks + program % chunks, found, exists)


@triton.jit
def total_scale_kernel(
    parts,
    out,
    group,
    chunks,
    RULE: tl.constexpr,
    FACTOR: tl.constexpr,
    LEAST: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """out [scales] of parts [scales, chunks]; one program a scale."""
    program = tl.program_id(0).to(tl.int64)
    number = tl.arange(0, BLOCK)[None, :]
    total = tl.zeros([1, BLOCK], tl.float64)
    for begin in range(0, chunks, BLOCK):
        part = tl.load(
            parts + program * chunks + begin + number, begin + number < chunks, other=0.0
        )
        total = tl.where((part > total) | (part != part), part, total) if RULE >= MAX else (
            total + part
        )  # fmt: skip
    if RULE >= MAX:
        found = row_max(total.to(tl.float32), total != total).to(tl.float64)
    else:
        found = tl.sum(total, 1)
    tl.store(out + program + tl.arange(0, 1), scale_of(found, group, RULE, FACTOR, LEAST))


_FIXED = {"RULE": ROOT.value, "FACTOR": 0.9957, "LEAST": MIN_SCALE}
_MOST = {"RULE": MAX.value, "FACTOR": 1.5, "LEAST": MIN_DYNAMIC_SCALE}
_TYPES = {"w": "*fp32", "out": "*fp32", "scales": "i32", "group": "i32", "chunks": "i32"}
_ROWS = {"ROWS": 1, "COLS": 1024, "ALIGNED": True}
_WIDE = {"ROWS": 8, "COLS": 128, "ALIGNED": True}
PARTS = _launch.Kernel(
    "compute_scale",
    compute_scale_kernel,
    tuple(
        _launch.Case(
            name,
            {**_TYPES, **({} if whole else {"parts": "*fp64"})},
            {**rule, **shape, "WHOLE": whole, **({"parts": None} if whole else {})},
            ("w", "group"),
        )
        for name, rule, shape, whole in (
            ("fixed, channel", _FIXED, _ROWS, True),
            ("absmax, groups", _MOST, _WIDE, True),
            ("absmean, tensor", {**_FIXED, "RULE": MEAN.value}, _ROWS, False),
        )
    ),
)
TOTAL = _launch.Kernel(
    "total_scale",
    total_scale_kernel,
    tuple(
        _launch.Case(
            name,
            {"parts": "*fp64", "out": "*fp32", "group": "i64", "chunks": "i32"},
            rule,
            loads16=False,
        )
        for name, rule in (("fixed", _FIXED), ("absmax", _MOST))
    ),
)
KERNELS = (PARTS, TOTAL)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def constants(grid: Grid, rule: str) -> dict[str, Any]:
    """The constexprs that choose a rule."""
    return {name.upper(): value for name, value in rule_of(grid, rule)._asdict().items()}


def compute_scale(w: Any, grid: Grid, rule: str, shape: tuple[int, ...], out: Any) -> Any:
    if out is None:
        out = torch.empty(shape, dtype=torch.float32, device=w.device)
    scales = math.prod(shape)
    group = w.numel() // scales
    block = PARTS.pick(w.device).blocks
    sizes, programs = blocks.split(scales, group, block["BLOCK"], block["LOOPS"])
    how, chunks = constants(grid, rule), sizes["chunks"]
    parts = None
    if chunks > 1:
        parts = torch.empty((scales, chunks), dtype=torch.float64, device=w.device)
    given = {"parts": parts, "out": out, **how}
    PARTS.launch(w.device, programs, w=_array.contiguous(w), WHOLE=chunks == 1, **given, **sizes)
    if chunks > 1:
        TOTAL.launch(w.device, scales, group=group, chunks=chunks, **given)
    return out
