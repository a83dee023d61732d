"""Triton backend of probe_matmul: which kernels run, and on what."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import torch
import triton.language as tl
from torch import Tensor

from .. import _array
from .._check import View
from .._launch import INTERPRETER, Kernel, architecture
from .._types import Flips, Grid, Packed
from .triton_cases import KERNELS as TILES
from .triton_cases import OPERAND, OPERANDS, SUM

FEW_ROWS = 128  # up to here codes are unpacked in the product, above once before it
# Codes of fewer bits would come by less than 16 bytes a thread.
LEAST_BITS = {"int8": 1, "float8": 1, "half": 2, "float32": 2}
INT8_PRODUCTS = 2**16  # so many products of int8 numbers fit int32, whatever they are
FLOAT8_BITS = 4  # codes of more bits have values that float8 e4m3 does not
FLIPS_AT_A_TIME = 16
KERNELS = (*TILES.values(), OPERAND, SUM)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    dtype, _, bits = case or ("", "", 0)
    if dtype == "float8_e4m3fn":
        if bits > FLOAT8_BITS:
            return f"float8 x takes grids of at most {FLOAT8_BITS} bits"
        found = torch.cuda.get_device_capability() if torch.cuda.is_available() else (9, 0)
        if found < (9, 0):
            return f"float8 x needs compute capability 9.0, this device has {found[0]}.{found[1]}"
    return None


@dataclass(frozen=True)
class Rule:
    """How codes become operands: q = mul * code + add, value = unit * q (+ 1/2 with row_sum)."""

    mul: int
    add: int
    unit: float
    row_sum: bool


def rule_of(grid: Grid, int8: bool) -> Rule:
    """Integers of every value, doubled where the values are halves."""
    if grid.kind != "mid-rise":
        return Rule(int(grid.step), int(grid.v_min), 1.0, False)
    if grid.code_bits == 8 and int8:
        return Rule(1, -128, 1.0, True)
    return Rule(2, int(2 * grid.v_min), 0.5, False)


@dataclass(frozen=True)
class Sizes:
    """Batches of x [rows, k] times w [columns, k], columns being n of each side that shares x.

    A row of the weight has ``width`` elements in groups of ``group``, padded with zeros to
    ``padded``. pitch: from one batch's codes to the next, in rows of the weight.
    """

    batches: int
    rows: int
    n: int
    columns: int
    width: int
    group: int
    padded: int
    flip_sides: int
    pitch: int

    @property
    def groups(self) -> int:
        return self.width // max(self.group, 1)

    @property
    def k(self) -> int:
        return self.groups * self.padded


def probe_matmul(
    x: Tensor,
    codes: Tensor | Packed | Flips,
    scale: Tensor,
    grid: Grid,
    bias: Tensor | None,
    x_scale: Tensor | None,
    view: View,
    out: Tensor | None,
) -> Tensor:
    flips = codes if isinstance(codes, Flips) else None
    data, bits, shape = stored(codes)
    x_sides, many = x.shape[0] if x.ndim == 3 else 1, len(shape) == 3
    sides = len(flips.count) if flips else shape[0] if many else x_sides
    if out is None:
        dtype = x.dtype if x_scale is None else torch.float32
        out = torch.empty((sides, x.shape[-2], view.rows), dtype=dtype, device=x.device)
    if out.numel() == 0:
        return out
    name = _array.dtype_name(x)
    few = "few" if x_sides * x.shape[-2] <= FEW_ROWS else "many"
    size = "flips" if flips else "group" if view.scale_cols > 1 else few
    kernel = kernel_of(size, name)
    group, step = max(view.cols // view.scale_cols, 1), kernel.pick(x.device).blocks["BLOCK_K"]
    each = x_sides > 1 and (many or flips is not None)  # x and the weights differ by side
    sizes = Sizes(
        batches=sides if each else 1,
        rows=x.shape[-2] * (1 if each else x_sides),
        n=view.rows,
        columns=view.rows * (sides if many and not each else 1),
        width=view.cols,
        group=group,
        padded=-(-group // step) * step,
        flip_sides=sides if flips and not each else 1,
        pitch=view.rows if many and each else 0,
    )
    rule = rule_of(grid, name == "int8")
    data, x = data.contiguous(), padded_x(x, sizes)
    inside = size == "few" and group % step == 0 and bits >= LEAST_BITS[OPERANDS[name][4]]
    operands = data if inside else operands_of(data, bits, rule, name, sizes)
    x_scale, bias = (None if a is None else a.contiguous() for a in (x_scale, bias))
    multiply(
        kernel, x, operands, bits if inside else 0, scale.contiguous(), x_scale, bias, out, flips,
        rule, sizes, name,
    )  # fmt: skip
    return out


def stored(codes: Tensor | Packed | Flips) -> tuple[Tensor, int, tuple[int, ...]]:
    """Bytes, bits of a code in them, and the codes' own shape."""
    if isinstance(codes, Packed):
        return codes.data, codes.bits, tuple(codes.shape)
    data = codes.base if isinstance(codes, Flips) else codes
    return data, 8, tuple(data.shape)


def kernel_of(size: str, name: str) -> Kernel:
    """The product's kernel: few or many rows of x or a scale a group, by x's dtype, or flips."""
    row = "" if size == "flips" else f".{OPERANDS[name][4]}"
    return TILES[f"probe_matmul.{size}{row}"]


def padded_x(x: Tensor, sizes: Sizes) -> Tensor:
    """x with zeros behind every group, as the operands have them."""
    if sizes.group == sizes.padded or sizes.width == 0:
        return x.contiguous()
    padded = x.new_zeros((x.numel() // sizes.group, sizes.padded))
    padded[:, : sizes.group] = x.reshape(-1, sizes.group)
    return padded


def operands_of(data: Tensor, bits: int, rule: Rule, name: str, sizes: Sizes) -> Tensor:
    """q of every code, [rows of data, k], zeros behind every group."""
    interpreted = architecture(data.device) == INTERPRETER
    dtype = torch.float32 if interpreted and name != "int8" else OPERANDS[name][2]
    rows = data.numel() // max(data.shape[-1], 1)
    operands = torch.empty((rows, sizes.k), dtype=dtype, device=data.device)
    row = OPERAND.pick(data.device)
    if operands.numel() == 0:
        return operands
    part = row.blocks["BLOCK_BYTES"] * 8 // bits
    OPERAND.launch(
        data.device, -(-rows // row.blocks["BLOCK_R"]) * sizes.groups, -(-sizes.padded // part),
        data=data, operands=operands, rows=rows, groups=sizes.groups, width=sizes.group,
        padded=sizes.padded, row_bytes=data.shape[-1], group_bytes=data.shape[-1] // sizes.groups,
        BITS=bits, MUL=rule.mul, ADD=rule.add,
        WHOLE=sizes.groups == 1 or sizes.group * bits % 8 == 0,
    )  # fmt: skip
    return operands


def multiply(
    kernel: Kernel,
    x: Tensor,
    w: Tensor,
    bits: int,
    scale: Tensor,
    x_scale: Tensor | None,
    bias: Tensor | None,
    out: Tensor,
    flips: Flips | None,
    rule: Rule,
    sizes: Sizes,
    name: str,
) -> None:
    """Launch the tiles, and the sum of their parts where K is split."""
    blocks, device = kernel.pick(x.device).blocks, x.device
    tiles = -(-sizes.rows // blocks["BLOCK_M"]) * -(-sizes.columns // blocks["BLOCK_N"])
    steps = sizes.k // blocks["BLOCK_K"]
    splits = split_count(tiles * sizes.batches, steps, device)
    if name == "int8":
        splits = max(splits, -(-sizes.k // INT8_PRODUCTS))
    each = max(1, -(-steps // splits))
    splits = max(1, -(-steps // each))
    y = out
    if splits > 1:
        y = torch.empty((splits, *out.shape), dtype=torch.float32, device=device)
    ends: dict[str, Any] = {
        "x_scale": x_scale, "scale": scale, "bias": bias, "n_size": sizes.n, "UNIT": rule.unit,
        "SCALE": {0: 0, 2: 1, 3: 2}[scale.ndim], "X_SCALE": x_scale is not None,
        "BIAS": bias is not None,
    }  # fmt: skip
    sparse: dict[str, Any] = dict.fromkeys(("base", "index", "code", "count")) | {"capacity": 0}
    if flips is not None:
        parts = (flips.base, flips.index, flips.code, flips.count)
        sparse = dict(zip(sparse, (p.contiguous() for p in parts), strict=False))
        sparse["capacity"] = flips.index.shape[1]
    interpreted = architecture(device) == INTERPRETER
    kernel.launch(
        device, tiles, splits, sizes.batches, x=x, w=w, y=y, m_size=sizes.rows,
        columns=sizes.columns, k_size=sizes.k, width=sizes.width, group_size=sizes.group,
        padded=sizes.padded, flip_sides=sizes.flip_sides, w_pitch=sizes.pitch * w.shape[-1],
        row_bytes=w.shape[-1], steps_a_split=each, BITS=bits, MUL=rule.mul, ADD=rule.add,
        ROW_SUM=rule.row_sum, SPLIT=splits > 1, FLIPS=FLIPS_AT_A_TIME if flips else 0,
        DOT=tl.float32 if interpreted and name != "int8" else OPERANDS[name][1], **ends, **sparse,
    )  # fmt: skip
    if splits > 1:
        part, rows = SUM.pick(device).blocks, out.numel() // sizes.n
        SUM.launch(
            device, -(-rows // part["BLOCK_R"]), -(-sizes.n // part["BLOCK_N"]), parts=y, y=out,
            splits=splits, rows=rows, x_rows=sizes.rows * sizes.batches, **ends,
        )  # fmt: skip


def split_count(programs: int, steps: int, device: Any) -> int:
    """Shares of K that give every multiprocessor work, of at least four steps each."""
    return max(1, min(2 * processors(device) // max(programs, 1), steps // 4))


@functools.cache
def processors(device: Any) -> int:
    """Multiprocessors of a device; a few in the interpreter."""
    if architecture(device) == INTERPRETER:
        return 4
    return int(torch.cuda.get_device_properties(device).multi_processor_count)
