"""How each Triton kernel is launched: one table by kernel and architecture, in place of autotuning.

``python -m fogzo_kernels._launch`` prints it. A kernel declares itself as a ``Kernel`` in the
KERNELS of its ``triton_kernel.py``, with the signatures that stand for its use: the interpreter's
coverage and the compilation without a GPU count the same list.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from . import _dispatch

INTERPRETER = 0  # the architecture of TRITON_INTERPRET=1
ARCHITECTURES = (80, 90, 100)
launched: set[str] = set()  # names of the kernels that have run in this process


@dataclass(frozen=True)
class Row:
    """Block sizes (constexprs of the kernel), warps of a program, software pipeline stages."""

    blocks: Mapping[str, int]
    warps: int = 4
    stages: int = 1


def _rows(gpu: Row, interpreter: Row, **architectures: Row) -> dict[int, Row]:
    """The same row on every GPU, those named sm_<number> excepted."""
    rows = {INTERPRETER: interpreter, **dict.fromkeys(ARCHITECTURES, gpu)}
    return {**rows, **{int(name[3:]): row for name, row in architectures.items()}}


def _tile(m: int, n: int, k: int, warps: int, stages: int) -> Row:
    """A tile [m, n] of a product, k at a time; eight tiles of rows share their columns' weights."""
    return Row({"BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k, "GROUP_M": 8}, warps, stages)


_SMALL = Row({"BLOCK_M": 16, "BLOCK_N": 16, "BLOCK_K": 32, "GROUP_M": 2})

# kernel -> architecture -> row. Not yet measured on a GPU.
TABLE: dict[str, dict[int, Row]] = {
    "noise": _rows(Row({"TILES": 4}), Row({"TILES": 4})),
    "perturb_quantize": _rows(Row({"TILES": 4}), Row({"TILES": 4}), sm_100=Row({"TILES": 4}, 8)),
    # one block size for both; triton 3.6 spills here with four warps
    "perturb_quantize.tanh": _rows(Row({"TILES": 4}, 8), Row({"TILES": 4})),
    "count_flips": _rows(Row({"BLOCK": 2048}), Row({"BLOCK": 1024})),  # one chunk for both
    "find_flips": _rows(Row({"BLOCK": 2048}), Row({"BLOCK": 1024})),
    "assemble_gradient": _rows(Row({"TILES": 4}), Row({"TILES": 4})),
    "whitened_norm_part": _rows(Row({"BLOCK": 1024, "LOOPS": 16}), Row({"BLOCK": 512, "LOOPS": 4})),
    "whitened_norm_total": _rows(Row({"BLOCK": 1024}), Row({"BLOCK": 16})),
    "quantize": _rows(Row({"BLOCK": 4096}), Row({"BLOCK": 2048})),
    "dequantize": _rows(Row({"BLOCK": 4096}), Row({"BLOCK": 2048})),
    "fake_quantize": _rows(Row({"BLOCK": 4096}), Row({"BLOCK": 2048})),
    "fake_quantize_backward": _rows(
        Row({"BLOCK": 1024, "LOOPS": 4}), Row({"BLOCK": 256, "LOOPS": 2})
    ),
    "scale_gradient": _rows(Row({"BLOCK": 128}), Row({"BLOCK": 16})),
    "compute_scale": _rows(Row({"BLOCK": 1024, "LOOPS": 4}), Row({"BLOCK": 256, "LOOPS": 2})),
    "total_scale": _rows(Row({"BLOCK": 1024}), Row({"BLOCK": 16})),
    "pack": _rows(Row({"BLOCK": 1024}), Row({"BLOCK": 512})),
    "unpack": _rows(Row({"BLOCK": 1024}), Row({"BLOCK": 512})),
    "hadamard.blocks": _rows(Row({"SIZE": 4096}, 8), Row({"SIZE": 128})),
    "hadamard.runs": _rows(Row({"SIZE": 4096}, 8), Row({"SIZE": 128})),
    "hadamard_quantize": _rows(Row({"SIZE": 4096}, 8), Row({"SIZE": 256})),
    "quantize_activation": _rows(Row({"SIZE": 2048}), Row({"SIZE": 64})),
    "quantize_activation.sign": _rows(Row({"SIZE": 2048}), Row({"SIZE": 64})),
    "probe_matmul.operands": _rows(
        Row({"BLOCK_R": 16, "BLOCK_BYTES": 128}), Row({"BLOCK_R": 4, "BLOCK_BYTES": 32})
    ),
    "probe_matmul.sum": _rows(
        Row({"BLOCK_R": 4, "BLOCK_N": 256}), Row({"BLOCK_R": 4, "BLOCK_N": 32})
    ),
    "probe_matmul.few.int8": _rows(
        _tile(64, 64, 256, 4, 3), _SMALL, sm_80=_tile(64, 64, 256, 4, 1)
    ),
    "probe_matmul.few.half": _rows(
        _tile(64, 64, 128, 4, 4), _SMALL, sm_80=_tile(64, 64, 128, 4, 1)
    ),
    "probe_matmul.few.float32": _rows(
        _tile(64, 128, 64, 4, 3), _SMALL, sm_80=_tile(32, 128, 64, 4, 1)
    ),
    "probe_matmul.few.float8": {
        INTERPRETER: _SMALL,
        90: _tile(64, 64, 256, 4, 3),
        100: _tile(64, 64, 256, 4, 3),
    },
    "probe_matmul.many.int8": _rows(
        _tile(128, 128, 128, 8, 4),
        _SMALL,
        sm_80=_tile(128, 128, 128, 8, 3),
        sm_90=_tile(128, 256, 128, 8, 3),
    ),
    "probe_matmul.many.half": _rows(
        _tile(128, 128, 64, 8, 4),
        _SMALL,
        sm_80=_tile(128, 128, 64, 8, 3),
        sm_90=_tile(128, 256, 64, 8, 3),
    ),
    "probe_matmul.many.float32": _rows(_tile(128, 128, 32, 8, 3), _SMALL),
    "probe_matmul.many.float8": {
        INTERPRETER: _SMALL,
        90: _tile(128, 128, 128, 8, 4),
        100: _tile(128, 128, 128, 8, 4),
    },
    "probe_matmul.group.int8": _rows(_tile(64, 128, 64, 4, 3), _SMALL),
    "probe_matmul.group.half": _rows(_tile(64, 128, 64, 4, 3), _SMALL),
    "probe_matmul.group.float32": _rows(
        _tile(64, 64, 64, 4, 3), _SMALL, sm_80=_tile(32, 64, 64, 4, 1)
    ),
    "probe_matmul.group.float8": {
        INTERPRETER: _SMALL,
        90: _tile(64, 128, 64, 4, 3),
        100: _tile(64, 128, 64, 4, 3),
    },
    "probe_matmul.flips": _rows(_tile(64, 64, 64, 8, 3), _SMALL, sm_90=_tile(64, 64, 64, 4, 3)),
}


def pick(kernel: str, arch: int) -> Row:
    """The row of a kernel; an architecture that has none takes the nearest older one's.

    From 12.0 on GPUs have the shared memory and the tensor-core instructions of 8.x again.
    """
    rows = TABLE[kernel]
    arch = 80 if arch >= 120 else arch
    known = [number for number in rows if INTERPRETER < number <= arch]
    if arch == INTERPRETER:
        return rows[INTERPRETER]
    return rows[max(known) if known else min(number for number in rows if number)]


@functools.cache
def architecture(device: Any) -> int:
    """90 for compute capability 9.0, or INTERPRETER."""
    if device.type == "cpu":
        return INTERPRETER
    import torch

    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


@dataclass(frozen=True)
class Case:
    """One compilation that stands for a use: argument types, constexprs but for the block sizes.

    types: "*fp32", "i64", "fp32" ... by argument; an argument that is None is a constexpr None.
    aligned: arguments known to be divisible by 16. loads16: whether its large loads are contiguous,
    so that their machine code must move 16 bytes a thread; narrow: pointers for which they are not.
    tensor: what tensor cores multiply, "int8", "half" or "float8"; "" without products.
    """

    name: str
    types: Mapping[str, str]
    constexprs: Mapping[str, Any]
    aligned: tuple[str, ...] = ()
    loads16: bool = True
    narrow: tuple[str, ...] = ()
    tensor: str = ""


@dataclass(frozen=True)
class Kernel:
    """A kernel, the row of TABLE it is launched by, and the cases it is compiled for.

    exact: its arithmetic is the contract's (DESIGN section 3), bit for bit.
    """

    name: str
    function: Any
    cases: tuple[Case, ...]
    exact: bool = True

    def pick(self, device: Any) -> Row:
        return pick(self.name, architecture(device))

    def launch(self, device: Any, *programs: int, **arguments: Any) -> None:
        """Run programs 0 .. programs - 1, of up to three axes, on the device's current stream."""
        if 0 in programs:
            return
        row = self.pick(device)
        launched.add(self.name)
        with _on(device):
            self.function[programs](
                **arguments,
                **row.blocks,
                num_warps=row.warps,
                num_stages=row.stages,
                enable_fp_fusion=False,
            )


def _on(device: Any) -> Any:
    if device.type == "cpu":
        return contextlib.nullcontext()
    import torch

    return torch.cuda.device(device)


def by_room() -> dict[str, tuple[Kernel, ...]]:
    """Every kernel of the package, by the room that declares it; imports triton."""
    found: dict[str, tuple[Kernel, ...]] = {}
    for room in dict.fromkeys(_dispatch.OPS.values()):
        name = f"{__package__}.{room}.triton_kernel"
        if importlib.util.find_spec(name) is not None:
            found[room] = importlib.import_module(name).KERNELS
    return found


def kernels() -> tuple[Kernel, ...]:
    """Every kernel of the package; imports triton."""
    return tuple(kernel for room in by_room().values() for kernel in room)


def main() -> None:
    print(f"{'kernel':24} {'arch':>11}  {'blocks':32} {'warps':>5} {'stages':>6}")
    for kernel, rows in TABLE.items():
        for arch, row in sorted(rows.items()):
            name = "interpreter" if arch == INTERPRETER else f"sm_{arch}"
            blocks = " ".join(f"{block}={size}" for block, size in row.blocks.items())
            print(f"{kernel:24} {name:>11}  {blocks:32} {row.warps:>5} {row.stages:>6}")


if __name__ == "__main__":
    main()
