"""What each Triton kernel has to move and to compute on the shapes that the bars are set for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

from fogzo_kernels._launch import Case, Kernel, pick

WEIGHTS = 300 * 2**20  # of a model, for the kernels that go over weights
TOKENS = (8192, 4096)  # activations
PRODUCTS = {"few": (8, 4096, 4096), "many": (8192, 4096, 4096)}
PROBES = 2
GROUP = 64
TYPE_BYTES = {"fp32": 4, "bf16": 2, "fp16": 2, "i8": 1, "u8": 1, "fp8e4nv": 1, "i64": 8}
# Bytes that go over weights reads and writes for each; packed forms: see ``_perturb``.
PER_WEIGHT = {
    "noise": 4.0,
    "count_flips": 2.0,
    "find_flips": 2.0,
    "whitened_norm_part": 4.0,
    "quantize": 5.0,
    "dequantize": 5.0,
    "fake_quantize": 8.0,
    "fake_quantize_backward": 12.0,
    "compute_scale": 4.0,
    "hadamard.blocks": 8.0,
    "hadamard.runs": 8.0,
}
# Second stages: over the partial results of the first.
SMALL = ("whitened_norm_total", "scale_gradient", "total_scale")


@dataclass(frozen=True)
class Work:
    """One call: bytes moved, operations (two a multiply-add) of a kind with a peak.

    elements: of its largest array, or multiply-adds; programs: how many run; steps: how often each
    goes through its main loop.
    """

    shape: str
    bytes: float
    operations: float
    kind: str
    elements: int
    programs: int
    steps: int


def work(kernel: Kernel, case: Case, arch: int) -> list[Work]:
    """The shapes of one case, none for a kernel whose work is nothing beside another's."""
    blocks, constants = pick(kernel.name, arch).blocks, case.constexprs
    name = kernel.name.removeprefix("probe_matmul.")
    if kernel.name in SMALL:
        return []
    if kernel.name in PER_WEIGHT:
        return [_weights(PER_WEIGHT[kernel.name], blocks)]
    if kernel.name in ("pack", "unpack"):
        return [_weights(1 + constants["BITS"] / 8, blocks)]
    if kernel.name == "perturb_quantize":
        return [_perturb(case, blocks, probes) for probes in (1, 4)]
    if kernel.name == "assemble_gradient":
        return [_weights(8.0, blocks, steps, f", {steps} probes") for steps in (1, 4)]
    if kernel.name.startswith("quantize_activation"):
        return [_activation(case, blocks)]
    if kernel.name == "hadamard_quantize":
        return [_rotated_rows(case, blocks)]
    if name == "operands":
        return [_operands(case, blocks)]
    if name == "sum":
        return [_sum(case, blocks)]
    if kernel.name.startswith("probe_matmul."):
        return [_product(name.partition(".")[0], case, blocks)]
    raise KeyError(f"_static_work.py does not know what {kernel.name} has to do")


def _weights(each: float, blocks: Mapping[str, int], steps: int = 1, more: str = "") -> Work:
    """A pass over all weights, ``each`` bytes for one."""
    one = blocks["TILES"] * 1024 if "TILES" in blocks else prod(blocks.values())
    return Work(
        f"{WEIGHTS >> 20}M weights{more}", each * WEIGHTS, 0, "", WEIGHTS, -(-WEIGHTS // one),
        blocks.get("LOOPS", steps),
    )  # fmt: skip


def _perturb(case: Case, blocks: Mapping[str, int], probes: int) -> Work:
    """Reads w and g, writes each side: float32 values, codes, or packed codes."""
    from fogzo_kernels.perturb_quantize import triton_kernel

    constants = case.constexprs
    forms = {
        triton_kernel.PACKED.value: constants["STORED"] / 8,
        triton_kernel.CODES.value: 1.0,
        triton_kernel.VALUES.value: 4.0,
    }
    out = forms.get(constants["FORM"], 4.0) * constants["SIDES"] * probes
    return _weights(8.0 + out, blocks, probes, f", {probes} probes")


def _activation(case: Case, blocks: Mapping[str, int]) -> Work:
    """Reads x, writes a byte for each; rows that one program reads once have its own width."""
    whole = case.constexprs.get("WHOLE", False)
    rows, width = TOKENS[0], case.constexprs["WIDTH"] if whole else TOKENS[1]
    size = TYPE_BYTES[case.types["x"][1:]]
    reach = min(width, blocks["SIZE"])
    first = int("WHOLE" in case.constexprs)  # that block lies before the loop
    return Work(
        f"{rows} x {width}", rows * width * (size + 1.0), 0, "", rows * width,
        -(-rows * reach // blocks["SIZE"]), max(1, width // reach - first),
    )  # fmt: skip


def _rotated_rows(case: Case, blocks: Mapping[str, int]) -> Work:
    """Reads w once (rows too long for a program: from the cache a second time), writes y's form."""
    whole, size = case.constexprs["WHOLE"], blocks["SIZE"]
    width = case.constexprs["WIDTH"] if whole else 4 * case.constexprs["WIDTH"]
    rows = WEIGHTS // width
    each = 4.0 + TYPE_BYTES[case.types["out"][1:]]
    programs, parts = (-(-rows * width // size), 1) if whole else (rows, width // size - 1)
    return Work(f"{rows} x {width}", each * WEIGHTS, 0, "", WEIGHTS, programs, parts)


def _operands(case: Case, blocks: Mapping[str, int]) -> Work:
    _, n, k = PRODUCTS["many"]
    bits, count = case.constexprs["BITS"], PROBES * n * k
    one = blocks["BLOCK_R"] * blocks["BLOCK_BYTES"] * 8 // bits
    moved = count * (bits / 8 + TYPE_BYTES[case.types["operands"][1:]])
    return Work(f"{PROBES} sides of {n} x {k}", moved, 0, "", count, -(-count // one), 1)


def _sum(case: Case, blocks: Mapping[str, int]) -> Work:
    m, n, _ = PRODUCTS["few"]
    count, splits = PROBES * m * n, 8
    moved = count * (4.0 * splits + TYPE_BYTES[case.types["y"][1:]])
    one = blocks["BLOCK_R"] * blocks["BLOCK_N"]
    return Work(
        f"{splits} parts of {PROBES} x {m} x {n}", moved, 0, "", count, count // one, splits
    )


def _product(size: str, case: Case, blocks: Mapping[str, int]) -> Work:
    """x of all sides shared, read once; weights as operands or codes; y written.

    Flips: the base's product once for all sides, without the sparse part.
    """
    m, n, k = PRODUCTS["few" if size == "few" else "many"]
    bits, types = case.constexprs["BITS"], case.types
    sides = 1 if size == "flips" else PROBES
    w = n * k * sides * (bits / 8 if bits else TYPE_BYTES[types["w"][1:]])
    moved = m * k * TYPE_BYTES[types["x"][1:]] + w + m * n * PROBES * TYPE_BYTES[types["y"][1:]]
    products = m * n * k * sides
    tiles = -(-m // blocks["BLOCK_M"]) * -(-n * sides // blocks["BLOCK_N"])
    kind: Any = {"*i8": "int8", "*fp8e4nv": "float8"}.get(types["x"], "half")
    times = 3 if types["x"] == "*fp32" else 1  # three bfloat16 products
    return Work(
        f"{PROBES} sides, {m} x {n} x {k}", moved, 2.0 * products * times, kind, products, tiles,
        k // blocks["BLOCK_K"],
    )  # fmt: skip
