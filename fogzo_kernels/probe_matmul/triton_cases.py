"""What the kernels of probe_matmul are compiled for: all rows of the table, all kinds of codes."""

from __future__ import annotations

from typing import Any

import torch
import triton.language as tl

from .._launch import Case, Kernel
from .triton_tiles import operand_kernel, sum_kernel, tile_kernel

# x: short name, the type of both operands (float32 as three bfloat16 numbers), tensor cores, row
OPERANDS: dict[str, tuple[str, Any, torch.dtype, str, str]] = {
    "int8": ("i8", tl.int8, torch.int8, "int8", "int8"),
    "bfloat16": ("bf16", tl.bfloat16, torch.bfloat16, "half", "half"),
    "float16": ("fp16", tl.float16, torch.float16, "half", "half"),
    "float32": ("fp32", tl.bfloat16, torch.bfloat16, "half", "float32"),
    "float8_e4m3fn": ("fp8e4nv", tl.float8e4nv, torch.float8_e4m3fn, "float8", "float8"),
}
SHORT = {tl.int8: "i8", tl.bfloat16: "bf16", tl.float16: "fp16", tl.float8e4nv: "fp8e4nv"}
ALIGNED = (
    "x", "x_scale", "w", "scale", "bias", "y", "base", "index", "code", "count", "n_size",
    "columns", "k_size", "group_size", "padded", "w_pitch", "row_bytes", "capacity",
)  # fmt: skip
COUNTS = ("m_size", "width", "flip_sides", "steps_a_split")
FLIP_POINTERS = ("base", "index", "code", "count")
EDGES = ("x_scale", "scale", "bias")  # a number a row or a column


def tile_case(
    size: str,
    name: str,
    bits: int = 0,
    split: bool = False,
    row_sum: bool = False,
    groups: bool = False,
) -> Case:
    """The product of one kind of x with operands (bits 0) or packed codes."""
    short, dot, _, tensor, _ = OPERANDS[name]
    scaled = name in ("int8", "float8_e4m3fn")
    flips = size == "flips"
    constants: dict[str, Any] = {
        "BITS": bits, "MUL": 2, "ADD": -3, "UNIT": 0.5, "ROW_SUM": row_sum,
        "SCALE": 2 if groups else 1, "X_SCALE": scaled, "BIAS": True, "SPLIT": split,
        "FLIPS": 16 if flips else 0, "DOT": dot,
        **({} if scaled else {"x_scale": None}),
        **({} if flips else {**dict.fromkeys(FLIP_POINTERS), "flip_sides": 1}),
    }  # fmt: skip
    types: dict[str, str] = {
        "x": f"*{short}", "w": "*u8" if bits else f"*{SHORT[dot]}",
        "y": "*fp32" if scaled or split else f"*{short}", **dict.fromkeys(EDGES, "*fp32"),
        "base": "*u8", "index": "*i64", "code": "*u8", "count": "*i64",
        **dict.fromkeys((*ALIGNED[10:], *COUNTS), "i32"),
    }  # fmt: skip
    types = {key: kind for key, kind in types.items() if key not in constants}
    about = f"{name} x, {f'{bits}-bit codes' if bits else 'operands'}"
    about += ", K split" * split + ", sums of x" * row_sum + ", groups" * (groups and flips)
    # Flips are found by their numbers, and gather the columns of x.
    narrow = (*EDGES, "x", *FLIP_POINTERS) if flips else EDGES
    return Case(about, types, constants, ALIGNED, narrow=narrow, tensor=tensor)


def operand_case(bits: int, to: str, whole: bool) -> Case:
    """Operands from codes of whole bytes, or from groups that begin within one."""
    sizes = ("rows", "groups", "width", "padded", "row_bytes", "group_bytes")
    aligned = ("data", "operands", "padded", "row_bytes")
    return Case(
        f"{bits}-bit codes to {to}" + ("" if whole else ", odd groups"),
        {"data": "*u8", "operands": f"*{to}", **dict.fromkeys(sizes, "i32")},
        {"BITS": bits, "MUL": 2, "ADD": -3, "WHOLE": whole},
        (*aligned, "width", "group_bytes") if whole else aligned,
        narrow=() if whole else ("data",),
    )


def sum_case(to: str) -> Case:
    scaled = to == "fp32"
    edges = EDGES if scaled else EDGES[1:]
    return Case(
        f"{to} y",
        {"parts": "*fp32", "y": f"*{to}", **dict.fromkeys(edges, "*fp32"),
         **dict.fromkeys(("splits", "rows", "n_size", "x_rows"), "i32")},
        {"UNIT": 0.5, "SCALE": 1, "X_SCALE": scaled, "BIAS": True,
         **({} if scaled else {"x_scale": None})},
        ("parts", "y", *EDGES, "n_size"),
        narrow=EDGES,
    )  # fmt: skip


def tiles(size: str, row: str, *cases: Case) -> tuple[str, Kernel]:
    name = f"probe_matmul.{size}{row and '.'}{row}"
    return name, Kernel(name, tile_kernel, cases, exact=False)


def by_row(size: str) -> list[tuple[str, Kernel]]:
    """The kernels of one size, a row of the table for each kind of x."""
    found = []
    for row in dict.fromkeys(entry[4] for entry in OPERANDS.values()):
        names = [name for name, entry in OPERANDS.items() if entry[4] == row]
        if size != "few":
            cases = [tile_case(size, name, groups=size == "group") for name in names]
            row_sum = size == "many" and row == "int8"
            cases += [tile_case(size, "int8", row_sum=True)] if row_sum else []
        else:
            cases = [tile_case(size, name, bits) for name in names for bits in (2, 8)]
            if row == "int8":
                cases += [tile_case(size, "int8", bits, split=True) for bits in (1, 2, 4)]
        found.append(tiles(size, row, *cases))
    return found


KERNELS: dict[str, Kernel] = dict(
    [
        *by_row("many"),
        *by_row("few"),
        *by_row("group"),
        tiles(
            "flips",
            "",
            *(tile_case("flips", name) for name in ("int8", "bfloat16", "float32")),
            *(tile_case("flips", name, groups=True) for name in ("int8", "float32")),
        ),
    ]
)
OPERAND = Kernel(
    "probe_matmul.operands",
    operand_kernel,
    tuple(
        operand_case(bits, to, whole)
        for bits, to, whole in (
            (1, "i8", True),
            (2, "i8", True),
            (8, "bf16", True),
            (2, "i8", False),
        )
    ),
    exact=False,
)
SUM = Kernel("probe_matmul.sum", sum_kernel, (sum_case("fp32"), sum_case("bf16")), exact=False)
