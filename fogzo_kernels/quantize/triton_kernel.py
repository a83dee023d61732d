"""Triton kernels of quantize and dequantize."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch
from .._check import View
from .._triton import blocks
from .._triton.grid import code_of, value_of
from .._triton.pack import unpack_rows
from .._types import Grid, Packed


@triton.jit
def quantize_kernel(
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
    """Codes, uint8, of w."""
    program = tl.program_id(0).to(tl.int64)
    number, exists, first, left = blocks.block_at(
        program, scales, group, chunks, ROWS, COLS, 1, ALIGNED
    )
    column = tl.arange(0, COLS)[None, :]
    inside = exists & (column < left)  # [ROWS, COLS]
    x = tl.load(w + first + column, inside, other=0.0)
    x = x * blocks.inverse(tl.load(scale + number, exists, other=1.0))
    tl.store(out + first + column, code_of(x, KIND, BITS).to(tl.uint8), inside)


@triton.jit
def dequantize_kernel(
    codes,
    scale,
    out,
    scales,
    group,
    chunks,
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    STORED: tl.constexpr,  # bits of a code in memory; rows are whole bytes
    ROWS: tl.constexpr,
    COLS: tl.constexpr,
    ALIGNED: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """a * value of codes."""
    program = tl.program_id(0).to(tl.int64)
    number, exists, first, left = blocks.block_at(
        program, scales, group, chunks, ROWS, COLS, 1, ALIGNED
    )
    column = tl.arange(0, COLS)[None, :]
    inside = exists & (column < left)  # [ROWS, COLS]
    place = first + column
    if STORED == 8:
        code = tl.load(codes + place, inside, other=0).to(tl.int32)
    else:
        byte = tl.load(codes + place // (8 // STORED), inside, other=0).to(tl.int32)
        shift = (place % (8 // STORED)).to(tl.int32) * STORED
        code = (byte >> shift) & ((1 << STORED) - 1)
    a = tl.load(scale + number, exists, other=1.0)
    tl.store(out + place, a * value_of(code, KIND, BITS), inside)


_SIZES = {"scale": "*fp32", "scales": "i32", "group": "i32", "chunks": "i32"}
_ROWS = {"KIND": 3, "BITS": 2, "ROWS": 1, "COLS": 4096, "ALIGNED": True}
_WIDE = {"KIND": 2, "BITS": 8, "ROWS": 32, "COLS": 128, "ALIGNED": True}
KERNELS = (
    _launch.Kernel(
        "quantize",
        quantize_kernel,
        tuple(
            _launch.Case(name, {**_SIZES, "w": "*fp32", "out": "*u8"}, shape, ("w", "out", "group"))
            for name, shape in (("channel", _ROWS), ("group of 128", _WIDE))
        ),
    ),
    _launch.Kernel(
        "dequantize",
        dequantize_kernel,
        tuple(
            _launch.Case(
                name,
                {**_SIZES, "codes": "*u8", "out": "*fp32"},
                {**shape, "STORED": stored},
                ("codes", "out", "group"),
                loads16=False,  # bytes
            )
            for name, shape, stored in (("codes", _WIDE, 8), ("packed", _ROWS, 2))
        ),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def quantize(w: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    if out is None:
        out = torch.empty(view.shape, dtype=torch.uint8, device=w.device)
    if 0 in view.shape:
        return out
    kernel, _ = KERNELS
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


def dequantize(codes: Any, scale: Any, grid: Grid, view: View, out: Any) -> Any:
    stored = 8
    if isinstance(codes, Packed):
        whole = codes.shape[-1] * codes.bits % 8 == 0
        stored = codes.bits if whole else 8
        codes = codes.data if whole else unpack_rows(codes)
    codes = _array.contiguous(codes)
    if out is None:
        out = torch.empty(view.shape, dtype=torch.float32, device=codes.device)
    if 0 in view.shape:
        return out
    _, kernel = KERNELS
    sizes, programs = blocks.shape(view, kernel.pick(codes.device).blocks["BLOCK"])
    kernel.launch(
        codes.device,
        programs,
        codes=codes,
        scale=_array.contiguous(scale),
        out=out,
        KIND=grid.number,
        BITS=grid.code_bits,
        STORED=stored,
        **sizes,
    )
    return out
