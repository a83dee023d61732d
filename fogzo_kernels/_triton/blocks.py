"""Blocks [ROWS, COLS] of elements by scale: a row is a part of the elements of one scale.

So a block divides nothing by the size of a group and sums a scale's elements along a row.
"""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl

from .._check import View


@triton.jit
def block_at(
    program,
    scales,
    group,
    chunks,
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    LOOPS: tl.constexpr,
    ALIGNED: tl.constexpr,
):
    """Scale numbers [ROWS, 1] int64, whether they exist, and each one's first element in this block
    and how many remain for it: int64 [ROWS, 1], int32 scalar."""
    band = program // chunks
    begin = (program - band * chunks) * (COLS * LOOPS)
    number = band * ROWS + tl.arange(0, ROWS)[:, None]
    first = number * group + begin
    left = tl.minimum(group - begin, COLS * LOOPS).to(tl.int32)
    if ALIGNED:
        left = tl.multiple_of(left, 16)
    return number, number < scales, first, left


@triton.jit
def inverse(a):
    """1 / a, correctly rounded."""
    return tl.div_rn(a * 0.0 + 1.0, a)


def shape(view: View, block: int, loops: int = 1) -> tuple[dict[str, Any], int]:
    """Sizes and constexprs of a launch over a view, and its number of programs."""
    scales = view.scale_rows * view.scale_cols
    return split(scales, view.rows * view.cols // scales, block, loops)


def split(scales: int, group: int, block: int, loops: int) -> tuple[dict[str, Any], int]:
    """``shape`` for scales of ``group`` elements each.

    The longest row that leaves at most a seventh of its lanes idle, else the one that leaves least.
    """
    columns = [block >> i for i in range(block.bit_length())]
    idle = {cols: -(-group // cols) * cols / group for cols in columns}
    cols = next((c for c in columns if idle[c] <= 7 / 6), min(columns, key=lambda c: idle[c]))
    chunks = -(-group // (cols * loops))
    rows = block // cols
    sizes = {"scales": scales, "group": group, "chunks": chunks, "ROWS": rows, "COLS": cols}
    return {**sizes, "ALIGNED": group % 16 == 0}, -(-scales // rows) * chunks
