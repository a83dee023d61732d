"""Triton kernels of whitened_norm: partial sums of every tensor in one launch, then their sum.

The order of additions depends on the sizes alone, so that equal calls give equal bits.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch, _surrogate
from .._check import View
from .._triton import table as tables
from .._triton import tiles


@triton.jit
def whitened_norm_part_kernel(
    table,
    parts,
    RUN: tl.constexpr,
    ALIGNED: tl.constexpr,
    STEPS: tl.constexpr,
    BLOCK: tl.constexpr,
    LOOPS: tl.constexpr,
):
    """parts [programs]: sum of float64(gw)^2 over LOOPS blocks of a tensor, gw = g * (a * e)."""
    program = tl.program_id(0).to(tl.int64)
    row = tiles.find_row(table, program, STEPS)
    begin = (program - tl.load(row + tiles.START)) * (BLOCK * LOOPS)
    numel = tiles.size_at(row, tiles.NUMEL, ALIGNED)
    e = tl.load(row + tiles.RADIUS).to(tl.int32).to(tl.float32, bitcast=True)
    grads = tiles.array_at(row, tiles.GRAD, tl.float32, ALIGNED)
    stride: tl.constexpr = RUN if RUN > 0 else BLOCK
    ahead = tl.arange(0, BLOCK)[None, :]
    starts = tl.arange(0, BLOCK // stride)[None, :] * stride
    total = tl.zeros([1, BLOCK], tl.float64)
    for loop in range(LOOPS):
        lead = begin + loop * BLOCK
        high = tl.maximum(tl.minimum(numel - lead, BLOCK), 0).to(tl.int32)
        if ALIGNED:
            lead, high = tl.multiple_of(lead, 16), tl.multiple_of(high, 16)
        g = tl.load(grads + lead + ahead, ahead < high, other=0.0)
        a = tiles.load_scales(row, lead, starts, 0, high, RUN)
        gw = (g * tiles.spread_runs(a * e, RUN)).to(tl.float64)
        total += gw * gw
    tl.store(parts + program, tl.sum(total))


@triton.jit
def whitened_norm_total_kernel(parts, out, count, BLOCK: tl.constexpr):
    """out = float32(sqrt(sum of parts)); one program."""
    number = tl.arange(0, BLOCK)
    total = tl.zeros([BLOCK], tl.float64)
    for begin in range(0, count, BLOCK):
        total += tl.load(parts + begin + number, begin + number < count, other=0.0)
    tl.store(out, tl.sqrt(tl.sum(total)).to(tl.float32))


def _case(name: str, run: int) -> _launch.Case:
    types = {"table": "*i64", "parts": "*fp64"}
    return _launch.Case(name, types, {"RUN": run, "ALIGNED": True, "STEPS": 8})


KERNELS = (
    _launch.Kernel(
        "whitened_norm_part",
        whitened_norm_part_kernel,
        (_case("channel", 128), _case("group of 4 k", 4), _case("tensor", 0)),
    ),
    _launch.Kernel(
        "whitened_norm_total",
        whitened_norm_total_kernel,
        (
            _launch.Case(
                "total", {"parts": "*fp64", "out": "*fp32", "count": "i32"}, {}, loads16=False
            ),
        ),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def whitened_norm(
    grads: list[Any],
    scales: list[Any],
    surrogates: list[str],
    noise: str,
    views: list[View],
    out: Any,
) -> Any:
    part, whole = KERNELS
    device = grads[0].device
    blocks = part.pick(device).blocks
    kept, rows = [], []
    for grad, scale, surrogate, view in zip(grads, scales, surrogates, views, strict=True):
        if 0 in view.shape:
            continue
        kept.append((_array.contiguous(grad), _array.contiguous(scale)))
        radius = _surrogate.radius(surrogate, noise)
        elements = blocks["BLOCK"] * blocks["LOOPS"]
        grad, scale = kept[-1]
        rows.append(tables.linear_row(view, elements, radius, grad=grad, scale=scale))
    if out is None:
        out = torch.empty((), dtype=torch.float32, device=device)
    if not rows:
        return out.zero_()
    table, steps, programs = tables.device_table(rows, device)
    parts = torch.empty(programs, dtype=torch.float64, device=device)
    part.launch(
        device,
        programs,
        table=table,
        parts=parts,
        RUN=tables.run_of(rows),
        ALIGNED=tables.aligned(rows),
        STEPS=steps,
    )
    whole.launch(device, 1, parts=parts, out=out, count=programs)
    return out
