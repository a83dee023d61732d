"""Triton kernel of hadamard_quantize: rows rotated, scaled and quantized in registers."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array
from .._check import View
from .._launch import Case, Kernel
from .._scale import MIN_SCALE, multiple
from .._triton.butterfly import rotate_rows
from .._triton.grid import code_of, value_of
from .._triton.scale import ROOT, scale_of
from .._types import Grid

BLOCK, STAGES = 128, 7


@triton.jit
def store_quantized(out, at, y, inverse, a, inside, KIND: tl.constexpr, BITS: tl.constexpr,
                    VALUES: tl.constexpr):  # fmt: skip
    """Values (NaN stays) or codes of y [R, L] at the places ``at``; inverse, a: [R, 1]."""
    x = y * inverse
    code = code_of(x, KIND, BITS)
    if VALUES:
        tl.store(out + at, a * tl.where(x != x, x, value_of(code, KIND, BITS)), inside)
    else:
        tl.store(out + at, code.to(tl.uint8), inside)


@triton.jit
def hadamard_quantize_kernel(w, out, scale, rows, width, KIND: tl.constexpr, BITS: tl.constexpr,
                             FACTOR: tl.constexpr, LEAST: tl.constexpr, VALUES: tl.constexpr,
                             EVEN: tl.constexpr, WHOLE: tl.constexpr, WIDTH: tl.constexpr,
                             STAGES: tl.constexpr, SIZE: tl.constexpr):  # fmt: skip
    """SIZE / WIDTH rows: y = H w, a = FACTOR * sqrt(mean(y^2)), then y by the grid.

    WIDTH columns at a time, whole blocks; WHOLE: that is all, so that w is read and rotated once.
    """
    row = tl.program_id(0).to(tl.int64) * (SIZE // WIDTH) + tl.arange(0, SIZE // WIDTH)
    k = tl.arange(0, WIDTH)
    at = row[:, None] * width + k[None, :]
    there = (row < rows)[:, None]
    inside = there & (k < width)[None, :]
    y = rotate_rows(tl.load(w + at, inside, other=0.0), k, width, STAGES, EVEN)
    y = tl.where(inside, y, 0.0)
    total = tl.sum(y.to(tl.float64) * y.to(tl.float64), 1)
    if not WHOLE:
        for begin in range(WIDTH, width, WIDTH):
            more = there & (begin + k < width)[None, :]
            part = tl.load(w + begin + at, more, other=0.0)
            part = tl.where(more, rotate_rows(part, begin + k, width, STAGES, EVEN), 0.0)
            total += tl.sum(part.to(tl.float64) * part.to(tl.float64), 1)
    a = scale_of(total, width, ROOT, FACTOR, LEAST)
    tl.store(scale + row, a, row < rows)
    inverse = tl.div_rn(a * 0.0 + 1.0, a)[:, None]
    store_quantized(out, at, y, inverse, a[:, None], inside, KIND, BITS, VALUES)
    if not WHOLE:
        for begin in range(WIDTH, width, WIDTH):
            more = there & (begin + k < width)[None, :]
            part = tl.load(w + begin + at, more, other=0.0)
            part = rotate_rows(part, begin + k, width, STAGES, EVEN)
            store_quantized(out, begin + at, part, inverse, a[:, None], more, KIND, BITS, VALUES)


def _case(name: str, width: int, **constexprs: Any) -> Case:
    kind = "*fp32" if constexprs["VALUES"] else "*u8"
    types = {"w": "*fp32", "out": kind, "scale": "*fp32", "rows": "i32", "width": "i32"}
    usual = {"KIND": 3, "BITS": 2, "FACTOR": 0.9957, "LEAST": MIN_SCALE, "STAGES": STAGES}
    aligned = ("w", "out", "width") if constexprs["EVEN"] else ("w", "out")
    narrow = () if constexprs["EVEN"] else ("w",)
    return Case(name, types, {**usual, "WIDTH": width, **constexprs}, aligned, narrow=narrow)


KERNELS = (
    Kernel(
        "hadamard_quantize",
        hadamard_quantize_kernel,
        (
            _case("values, rows of 1024", 1024, VALUES=True, EVEN=True, WHOLE=True),
            _case("codes, rows of 4096", 4096, VALUES=False, EVEN=True, WHOLE=True),
            _case("values, any rows", 4096, VALUES=True, EVEN=True, WHOLE=False),
            _case("values, remainders", 1024, VALUES=True, EVEN=False, WHOLE=True),
            _case("codes, any remainders", 4096, VALUES=False, EVEN=False, WHOLE=False),
        ),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def hadamard_quantize(w: Any, grid: Grid, form: str, view: View, out: Any) -> tuple[Any, Any]:
    values = form == "values"
    result, scale = out or (None, None)
    if result is None:
        dtype = torch.float32 if values else torch.uint8
        result = torch.empty(view.shape, dtype=dtype, device=w.device)
    if scale is None:
        scale = torch.empty((view.rows, 1), dtype=torch.float32, device=w.device)
    (kernel,) = KERNELS
    size = kernel.pick(w.device).blocks["SIZE"]
    width = min(size, max(BLOCK, triton.next_power_of_2(view.cols)))
    kernel.launch(
        w.device, -(-view.rows * width // size), w=_array.contiguous(w), out=result, scale=scale,
        rows=view.rows, width=view.cols, KIND=grid.number, BITS=grid.code_bits,
        FACTOR=multiple(grid), LEAST=MIN_SCALE, VALUES=values, EVEN=view.cols % BLOCK == 0,
        WHOLE=view.cols <= width, WIDTH=width, STAGES=STAGES,
    )  # fmt: skip
    return result, scale
