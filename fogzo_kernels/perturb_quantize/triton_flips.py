"""Stream compaction: which codes differ from those of w, in the order of elements.

Two launches for all tensors of a call: count by chunk, add the counts up, then each chunk writes
from its own place. So equal calls give equal bits, in whatever order the chunks run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _check, _launch
from .._triton import table as tables
from .._triton import tiles
from .._types import Flips


@triton.jit
def chunk_of(table, program, STEPS: tl.constexpr):
    """Table row and side of a program's chunk, and the chunk's number within it.

    A row's programs are the chunks of one side, its segments the sides.
    """
    row = tiles.find_row(table, program, STEPS)
    inside = program - tl.load(row + tiles.START)
    chunks = tl.load(row + tiles.PROGRAMS)
    side = inside // chunks
    return row, side, inside - side * chunks


@triton.jit
def flips_in(row, side, chunk, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Codes [BLOCK] of a chunk, and 1 where they differ from those of w."""
    numel = tiles.size_at(row, tiles.NUMEL, ALIGNED)
    begin = chunk * BLOCK
    ahead = tl.arange(0, BLOCK)
    left = tl.minimum(numel - begin, BLOCK).to(tl.int32)
    if ALIGNED:
        left = tl.multiple_of(left, 16)
    codes = tiles.array_at(row, tiles.OUT, tl.uint8, ALIGNED) + side * numel + begin
    base = tiles.array_at(row, tiles.BASE, tl.uint8, ALIGNED) + begin
    code = tl.load(codes + ahead, ahead < left, other=0)
    return code, (code != tl.load(base + ahead, ahead < left, other=0)).to(tl.int32)


@triton.jit
def count_flips_kernel(
    table, counts, STEPS: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr
):
    """counts [programs], int64: codes of a chunk of BLOCK elements that differ from base."""
    program = tl.program_id(0).to(tl.int64)
    row, side, chunk = chunk_of(table, program, STEPS)
    _, differs = flips_in(row, side, chunk, ALIGNED, BLOCK)
    tl.store(counts + program, tl.sum(differs).to(tl.int64))


@triton.jit
def find_flips_kernel(table, ends, STEPS: tl.constexpr, ALIGNED: tl.constexpr, BLOCK: tl.constexpr):
    """Element numbers and codes of the flips of a chunk, and its share of the padding.

    ends: counts summed over all programs. Most chunks have no flip: they read no codes.
    """
    program = tl.program_id(0).to(tl.int64)
    row, side, chunk = chunk_of(table, program, STEPS)
    chunks = tl.load(row + tiles.PROGRAMS)
    before = tl.load(ends + program - chunk - 1, program > chunk, other=0)  # the other sides'
    total = tl.load(ends + program - chunk + chunks - 1) - before
    tl.store(tiles.array_at(row, tiles.COUNT, tl.int64, False) + side, total)
    capacity = tl.load(row + tiles.CAPACITY)
    index = tiles.array_at(row, tiles.INDEX, tl.int64, False) + side * capacity
    new = tiles.array_at(row, tiles.NEW, tl.uint8, False) + side * capacity
    start = tl.load(ends + program - 1, program > 0, other=0) - before
    if tl.load(ends + program) - before > start:
        code, differs = flips_in(row, side, chunk, ALIGNED, BLOCK)
        rank = tl.cumsum(differs) - 1
        room = tl.minimum(tl.maximum(capacity - start, 0), BLOCK).to(tl.int32)
        found = (differs == 1) & (rank < room)
        tl.store(index + start + rank, chunk * BLOCK + tl.arange(0, BLOCK), found)
        tl.store(new + start + rank, code, found)
    share = (capacity + chunks - 1) // chunks
    begin = tl.maximum(chunk * share, total)
    end = tl.minimum(chunk * share + share, capacity)
    while begin < end:
        at = begin + tl.arange(0, BLOCK)
        tl.store(index + at, tl.full((BLOCK,), -1, tl.int64), at < end)
        tl.store(new + at, tl.zeros((BLOCK,), tl.uint8), at < end)
        begin += BLOCK


_SHAPE = {"STEPS": 8, "ALIGNED": True}
COUNT = _launch.Kernel(
    "count_flips",
    count_flips_kernel,
    (_launch.Case("count", {"table": "*i64", "counts": "*i64"}, _SHAPE),),
)
FIND = _launch.Kernel(
    "find_flips",
    find_flips_kernel,
    (_launch.Case("find", {"table": "*i64", "ends": "*i64"}, _SHAPE),),
)


def find_flips(
    codes: list[Any], bases: list[Any], counts: Any, given: list[Flips | None]
) -> list[Flips]:
    """Flips of each codes [sides, *shape] against its base [*shape], counts [L, sides] known.

    On the CPU more flips than the room of a ``given`` are an error; on a GPU only the room of those
    that are not given is read back, once for all.
    """
    device = counts.device
    if device.type == "cpu" or None in given:
        most = counts.amax(1).tolist()
    results, rows = [], []
    block = COUNT.pick(device).blocks["BLOCK"]
    for number, (code, base, out) in enumerate(zip(codes, bases, given, strict=True)):
        capacity = out.index.shape[1] if out else most[number]
        if out and device.type == "cpu" and most[number] > capacity:
            got = f"has room for {capacity} flips"
            _check.fail("perturb_quantize", "out", got, str(most[number]))
        results.append(out or _room(base, counts[number], capacity))
        if base.numel() == 0:
            results[-1].count.zero_()
            results[-1].index.fill_(-1)
            results[-1].code.zero_()
        else:
            rows.append(_row(code, base, results[-1], block))
    if rows:
        table, steps, programs = tables.device_table(rows, device)
        parts = torch.empty(programs, dtype=torch.int64, device=device)
        how = {"table": table, "STEPS": steps, "ALIGNED": tables.aligned(rows)}
        COUNT.launch(device, programs, counts=parts, **how)
        FIND.launch(device, programs, ends=parts.cumsum(0), **how)
    return results


def _room(base: Any, count: Any, capacity: int) -> Flips:
    shape = (len(count), capacity)
    index = torch.empty(shape, dtype=torch.int64, device=base.device)
    return Flips(base, index, torch.empty(shape, dtype=torch.uint8, device=base.device), count)


def _row(codes: Any, base: Any, flips: Flips, block: int) -> dict[str, int]:
    """The table row of one tensor: chunks of a side as programs, sides as segments."""
    return {
        "programs": -(-base.numel() // block),
        "segments": len(codes),
        "numel": base.numel(),
        "out": codes.data_ptr(),
        "base": base.data_ptr(),
        "index": flips.index.data_ptr(),
        "new": flips.code.data_ptr(),
        "count": flips.count.data_ptr(),
        "capacity": flips.index.shape[1],
    }
