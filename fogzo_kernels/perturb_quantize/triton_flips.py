"""Stream compaction: which codes differ from those of w, in the order of elements.

Count by chunk, add the counts up, then each chunk writes from its own place: equal calls give equal
bits, in whatever order the chunks run.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _check, _launch
from .._types import Flips


@triton.jit
def count_flips_kernel(base, codes, counts, numel, chunks, BLOCK: tl.constexpr):
    """counts [sides, chunks], int64: codes of a chunk of BLOCK elements that differ from base."""
    program = tl.program_id(0).to(tl.int64)
    side = program // chunks
    local = (program - side * chunks) * BLOCK + tl.arange(0, BLOCK)
    inside = local < numel
    code = tl.load(codes + side * numel + local, inside, other=0)
    differs = (code != tl.load(base + local, inside, other=0)) & inside
    tl.store(counts + program, tl.sum(differs.to(tl.int32)).to(tl.int64))


@triton.jit
def find_flips_kernel(base, codes, ends, index, new, numel, chunks, capacity, BLOCK: tl.constexpr):
    """Element numbers and codes of the flips of a chunk; ends: counts summed along each side."""
    program = tl.program_id(0).to(tl.int64)
    side = program // chunks
    local = (program - side * chunks) * BLOCK + tl.arange(0, BLOCK)
    inside = local < numel
    code = tl.load(codes + side * numel + local, inside, other=0)
    differs = ((code != tl.load(base + local, inside, other=0)) & inside).to(tl.int32)
    start = tl.load(ends + program) - tl.sum(differs)
    rank = start + tl.cumsum(differs) - 1
    found = (differs == 1) & (rank < capacity)
    tl.store(index + side * capacity + rank, local, found)
    tl.store(new + side * capacity + rank, code, found)


_FLIPS = {"base": "*u8", "codes": "*u8", "numel": "i64", "chunks": "i32"}
_WIDE = ("base", "codes", "numel")
COUNT = _launch.Kernel(
    "count_flips",
    count_flips_kernel,
    (_launch.Case("count", {**_FLIPS, "counts": "*i64"}, {}, _WIDE),),
)
FIND = _launch.Kernel(
    "find_flips",
    find_flips_kernel,
    (
        _launch.Case(
            "find",
            {**_FLIPS, "ends": "*i64", "index": "*i64", "new": "*u8", "capacity": "i64"},
            {},
            _WIDE,
        ),
    ),
)


def find_flips(codes: Any, base: Any, count: Any, capacity: int, given: Flips | None) -> Flips:
    """Flips of codes [sides, *shape] against base [*shape], count [sides] of them known.

    On the CPU more flips than the room of ``given`` are an error; on a GPU nothing is read back.
    """
    device, sides, numel = codes.device, codes.shape[0], base.numel()
    if given and device.type == "cpu" and int(count.max()) > capacity:
        got = f"has room for {capacity} flips"
        _check.fail("perturb_quantize", "out", got, str(int(count.max())))
    index, new = (given.index, given.code) if given else (None, None)
    if index is None or new is None:
        index = torch.empty((sides, capacity), dtype=torch.int64, device=device)
        new = torch.empty((sides, capacity), dtype=torch.uint8, device=device)
    index.fill_(-1)
    new.zero_()
    chunks = -(-numel // COUNT.pick(device).blocks["BLOCK"])
    counts = torch.empty((sides, chunks), dtype=torch.int64, device=device)
    sizes = {"base": base, "codes": codes, "numel": numel, "chunks": chunks}
    COUNT.launch(device, sides * chunks, counts=counts, **sizes)
    ends = counts.cumsum(1)
    FIND.launch(device, sides * chunks, ends=ends, index=index, new=new, capacity=capacity, **sizes)
    if given:
        given.count.copy_(count)
    return given or Flips(base, index, new, count)
