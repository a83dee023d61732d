"""Which elements a program has: tiles of 1,024 element numbers of one of many tensors.

A tensor whose rows follow each other in the numbering (row_pitch = columns) is one segment, else
each row is one. Programs are numbered through all tensors: tensor, then segment, then T tiles from
a multiple of T on.
Columns of the table, int64, one row a tensor, are those of ``table.COLUMNS``.
"""

from __future__ import annotations

import triton
import triton.language as tl

COLUMNS = (
    "start",  # number of the first program
    "programs",  # programs of one segment
    "segment",  # elements of one segment
    "pitch",  # element numbers from one segment's start to the next's
    "offset",  # element number of the first element
    "numel",  # elements of the tensor
    "group",  # elements that share a scale
    "tensor",  # number of the tensor
    "w",  # addresses
    "grad",
    "scale",
    "out",
    "base",
    "count",
    "radius",  # the bits of a float32
    "index",
    "new",
    "capacity",  # flips that a side has room for
)
WIDTH = tl.constexpr(len(COLUMNS))
START = tl.constexpr(COLUMNS.index("start"))
PROGRAMS = tl.constexpr(COLUMNS.index("programs"))
SEGMENT = tl.constexpr(COLUMNS.index("segment"))
PITCH = tl.constexpr(COLUMNS.index("pitch"))
OFFSET = tl.constexpr(COLUMNS.index("offset"))
NUMEL = tl.constexpr(COLUMNS.index("numel"))
GROUP = tl.constexpr(COLUMNS.index("group"))
TENSOR = tl.constexpr(COLUMNS.index("tensor"))
W = tl.constexpr(COLUMNS.index("w"))
GRAD = tl.constexpr(COLUMNS.index("grad"))
SCALE = tl.constexpr(COLUMNS.index("scale"))
OUT = tl.constexpr(COLUMNS.index("out"))
RADIUS = tl.constexpr(COLUMNS.index("radius"))
BASE = tl.constexpr(COLUMNS.index("base"))
COUNT = tl.constexpr(COLUMNS.index("count"))
INDEX = tl.constexpr(COLUMNS.index("index"))
NEW = tl.constexpr(COLUMNS.index("new"))
CAPACITY = tl.constexpr(COLUMNS.index("capacity"))


@triton.jit
def find_row(table, program, STEPS: tl.constexpr):
    """Address of the table row of a program's tensor: 2^STEPS is at least the number of rows.

    The table is padded to 2^STEPS rows whose start no program reaches.
    """
    index = tl.full((), 0, tl.int32)
    for step in tl.static_range(STEPS):
        middle = index + (1 << (STEPS - 1 - step))
        index = tl.where(program >= tl.load(table + middle * WIDTH + START), middle, index)
    return table + index * WIDTH


@triton.jit
def size_at(row, COLUMN: tl.constexpr, ALIGNED: tl.constexpr):
    """A size of the table, said to be a multiple of 16 elements where ALIGNED."""
    size = tl.load(row + COLUMN)
    if ALIGNED:
        size = tl.multiple_of(size, 16)
    return size


@triton.jit
def array_at(row, COLUMN: tl.constexpr, TYPE: tl.constexpr, ALIGNED: tl.constexpr):
    """An array's pointer, at a multiple of 16 bytes where ALIGNED."""
    pointer = tl.load(row + COLUMN).to(tl.pointer_type(TYPE))
    if ALIGNED:
        pointer = tl.multiple_of(pointer, 16)
    return pointer


@triton.jit
def place(row, program, TILES: tl.constexpr, ALIGNED: tl.constexpr):
    """First tile's number and the local number of its first element, int64 scalars (the latter may
    lie before the segment's start); and the int32 range of distances from it that exist."""
    inside = program - tl.load(row + START)
    programs = tl.load(row + PROGRAMS)
    number = inside // programs
    length = size_at(row, SEGMENT, ALIGNED)
    first = size_at(row, OFFSET, ALIGNED) + number * size_at(row, PITCH, ALIGNED)
    tile = (first // (1024 * TILES) + inside - number * programs) * TILES
    lead = number * length + tile * 1024 - first
    low = tl.maximum(tl.minimum(first - tile * 1024, TILES * 1024), 0).to(tl.int32)
    high = tl.maximum(tl.minimum(first + length - tile * 1024, TILES * 1024), 0).to(tl.int32)
    if ALIGNED:
        lead, low, high = (
            tl.multiple_of(lead, 16),
            tl.multiple_of(low, 16),
            tl.multiple_of(high, 16),
        )
    return tile, lead, low, high


@triton.jit
def steps_in(LANES: tl.constexpr, RUN: tl.constexpr):
    """int32 [8, LANES / RUN]: distance of every RUN-th element (0: of one) from the first."""
    stride: tl.constexpr = RUN if RUN > 0 else LANES
    lane = tl.arange(0, LANES // stride) * stride
    return ((lane // 128) * 1024 + lane % 128)[None, :] + (tl.arange(0, 8) * 128)[:, None]


@triton.jit
def scale_index(lead, ahead, group):
    """Index, int64, of the scale of local elements lead + ahead: (lead + ahead) // group.

    lead: int64 scalar; ahead: int32 tensor below 2^30; one 64-bit division serves them all.
    Elements before 0 (masked by the caller) get some index.
    """
    before = tl.maximum(lead, 0) // group
    left = tl.minimum(group - (lead - before * group), 1 << 30).to(tl.int32)
    beyond = ahead - left
    period = tl.minimum(group, 1 << 30).to(tl.uint32)
    further = tl.maximum(beyond, 0).to(tl.uint32) // period
    return before + tl.where(beyond < 0, 0, further.to(tl.int64) + 1)


@triton.jit
def load_scales(row, lead, ahead, low, high, RUN: tl.constexpr):
    """float32 scales of the elements lead + ahead, low <= ahead < high; a scalar where RUN is 0."""
    scales = array_at(row, SCALE, tl.float32, False)
    if RUN == 0:
        found = tl.load(scales)
    else:
        index = scale_index(lead, ahead, tl.load(row + GROUP))
        found = tl.load(scales + index, (ahead >= low) & (ahead < high), other=1.0)
    return found


@triton.jit
def spread_runs(values, RUN: tl.constexpr):
    """[R, L] -> [R, L * RUN], each value RUN times; RUN 0 leaves a scalar as it is."""
    if RUN > 1:
        wide = tl.broadcast_to(values[:, :, None], [values.shape[0], values.shape[1], RUN])
        result = tl.reshape(wide, [values.shape[0], values.shape[1] * RUN])
    else:
        result = values
    return result
