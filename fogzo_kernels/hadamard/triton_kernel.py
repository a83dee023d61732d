"""Triton backend of hadamard: the reference's stages in its order, so equal bits."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .._launch import Case, Kernel
from .._triton.butterfly import rotate


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


@triton.jit
def block_kernel(x, out, blocks, blocks_a_row, width, begin, factor,
                 STAGES: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """SIZE elements: neighbouring blocks of 2^STAGES, blocks_a_row behind ``begin`` of each row."""
    M: tl.constexpr = 1 << STAGES
    BLOCKS: tl.constexpr = SIZE // M
    block = tl.program_id(0).to(tl.int64) * BLOCKS + tl.arange(0, BLOCKS)
    at = block // blocks_a_row * width + begin + block % blocks_a_row * M
    at = at[:, None] + tl.arange(0, M)[None, :]
    inside = tl.broadcast_to((block < blocks)[:, None], (BLOCKS, M))
    flat = tl.reshape(tl.load(x + at, mask=inside, other=0), (BLOCKS * M,))
    rotated = rotate(flat, BLOCKS * M, STAGES, 1) * factor
    tl.store(out + at, tl.reshape(rotated, (BLOCKS, M)), mask=inside)


@triton.jit
def run_kernel(out, blocks_a_row, width, begin, factor,
               RUN: tl.constexpr, STAGES: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """In place, the stages of stride RUN and more: program (block of 2^STAGES runs, part)."""
    RUNS: tl.constexpr = 1 << STAGES
    COLUMNS: tl.constexpr = SIZE // RUNS
    block = tl.program_id(0).to(tl.int64)
    first = block // blocks_a_row * width + begin + block % blocks_a_row * (RUNS * RUN)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    at = first + tl.arange(0, RUNS)[:, None] * RUN + column[None, :]
    flat = tl.reshape(tl.load(out + at), (RUNS * COLUMNS,))
    rotated = rotate(flat, RUNS * COLUMNS, STAGES, COLUMNS) * factor
    tl.store(out + at, tl.reshape(rotated, (RUNS, COLUMNS)))


def hadamard(x: Tensor, block: int, out: Tensor | None) -> Tensor:
    x = x.contiguous()
    if out is None:
        out = torch.empty_like(x)
    width = x.shape[-1]
    rows = x.numel() // max(width, 1)
    begin, size = 0, block
    while rows and begin < width:
        count = (width - begin) // size  # of the full size as many as fit, then one of each
        if count:
            rotate_blocks(x, out, rows, count, width, begin, size)
        begin += count * size
        size //= 2
    return out


def rotate_blocks(
    x: Tensor, out: Tensor, rows: int, count: int, width: int, begin: int, size: int
) -> None:
    """Blocks of one size: ``count`` in each row, from ``begin`` on."""
    reach = BLOCK_PASS.pick(x.device).blocks["SIZE"]
    run = min(size, reach)
    whole = run == size
    parts = count * (size // run)  # of a row
    BLOCK_PASS.launch(
        x.device, -(-rows * parts * run // reach), x=x, out=out, blocks=rows * parts,
        blocks_a_row=parts, width=width, begin=begin, factor=size**-0.5 if whole else 1.0,
        STAGES=run.bit_length() - 1,
    )  # fmt: skip
    if not whole:
        columns = max(1, RUN_PASS.pick(x.device).blocks["SIZE"] * run // size)
        RUN_PASS.launch(
            x.device, rows * count, run // columns, out=out, blocks_a_row=count, width=width,
            begin=begin, factor=size**-0.5, RUN=run, STAGES=(size // run).bit_length() - 1,
        )  # fmt: skip


_TYPES = {
    "x": "*fp32", "out": "*fp32", "blocks": "i32", "blocks_a_row": "i32", "width": "i32",
    "begin": "i32", "factor": "fp32",
}  # fmt: skip
_OUT = {name: kind for name, kind in _TYPES.items() if name not in ("x", "blocks")}
_ALIGNED = ("x", "out", "width", "begin")
BLOCK_PASS = Kernel(
    "hadamard.blocks",
    block_kernel,
    (
        Case("blocks of 128", _TYPES, {"STAGES": 7}, _ALIGNED),
        Case("blocks of 4096", _TYPES, {"STAGES": 12}, _ALIGNED),
        Case("remainders of 4", _TYPES, {"STAGES": 2}, _ALIGNED, narrow=("x", "out")),
    ),
)
RUN_PASS = Kernel(
    "hadamard.runs",
    run_kernel,
    (Case("blocks of 16384", _OUT, {"RUN": 4096, "STAGES": 2}, _ALIGNED),),
)
KERNELS = (BLOCK_PASS, RUN_PASS)
