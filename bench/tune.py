"""`fogzo bench --tune`: rows of the launch table for the GPU at hand.

Each candidate's kernel is read first (one with a finding is no candidate), its result compared with
that of the row in force, and its call timed; the fastest is printed as a line of the table.
"""

from __future__ import annotations

import contextlib
import itertools
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import torch

import fogzo_kernels as fk
from fogzo_kernels import _dispatch, _launch
from fogzo_kernels._launch import Kernel, Row

from ._events import seconds
from ._options import BenchError, require_close
from ._report import say
from ._static_compile import compiled
from ._tune_calls import Call, calls

# Off by rounding where products are added in another order, or float64 sums rounded to float32.
CLOSE = 1e-2
SUMS = dict.fromkeys(
    ("whitened_norm_part", "whitened_norm_total", "compute_scale", "total_scale", "scale_gradient"),
    2.0**-22,
)
# Kernels whose blocks are those of another one: what one counts the other reads.
FOLLOWS = {"perturb_quantize.tanh": "perturb_quantize", "find_flips": "count_flips"}


def candidates(row: Row, sizes_too: bool = True) -> Iterator[Row]:
    """Other rows to try: tiles of a product from a grid, else halved and doubled blocks.

    Args:
        sizes_too: whether other blocks too, or other numbers of warps alone.

    Example:
        >>> len(list(candidates(Row({"SIZE": 4096}, 8))))
        9
    """
    if "BLOCK_M" in row.blocks:
        sizes = itertools.product((64, 128), (64, 128, 256), (32, 64, 128, 256), (4, 8), (1, 3, 4))
        for m, n, k, warps, stages in sizes:
            blocks = {**row.blocks, "BLOCK_M": m, "BLOCK_N": n, "BLOCK_K": k}
            yield Row(blocks, warps, stages)
        return
    factors = (0.5, 1, 2) if sizes_too else (1,)
    for times in itertools.product(factors, repeat=len(row.blocks)):
        blocks = {
            name: max(1, int(size * factor))
            for (name, size), factor in zip(row.blocks.items(), times, strict=True)
        }
        for warps in (2, 4, 8):
            yield replace(row, blocks=blocks, warps=warps)


def nearest_first(row: Row, sizes_too: bool = True) -> list[Row]:
    """The candidates, those first that differ from a row in the fewest numbers.

    Example:
        >>> nearest_first(Row({"SIZE": 4096}, 8))[0]
        Row(blocks={'SIZE': 4096}, warps=8, stages=1)
    """

    def differences(other: Row) -> int:
        sizes = sum(other.blocks[name] != size for name, size in row.blocks.items())
        return sizes + (other.warps != row.warps) + (other.stages != row.stages)

    return sorted(candidates(row, sizes_too), key=differences)


def clean(kernel: Kernel, row: Row, arch: int) -> bool:
    """Whether every case of a kernel, and of those that follow it, has no finding with a row."""
    together = [kernel, *(k for k in _launch.kernels() if FOLLOWS.get(k.name) == kernel.name)]
    with in_force(kernel.name, row, arch):
        return all(
            not compiled(each, case, arch).findings for each in together for case in each.cases
        )


@contextlib.contextmanager
def in_force(name: str, row: Row, arch: int) -> Iterator[None]:
    """Launch a kernel by another row inside the ``with`` block, its followers by their blocks."""
    rows = {name: row}
    for follower, leader in FOLLOWS.items():
        if leader == name:
            rows[follower] = replace(_launch.pick(follower, arch), blocks=row.blocks)
    before = {changed: dict(_launch.TABLE[changed]) for changed in rows}
    for changed, other in rows.items():
        _launch.TABLE[changed][arch] = other
    try:
        yield
    finally:
        _launch.TABLE.update(before)


def tuned(
    kernel: Kernel,
    call: Call,
    arch: int,
    clock: Callable[[Call], float] = seconds,
    limit: float = math.inf,
) -> tuple[Row, float, float]:
    """The fastest row, its time and that of the row in force, in seconds.

    No candidate is begun when ``limit`` seconds have gone by.

    Raises:
        BenchError: a candidate whose result differs.
    """
    now, end = _launch.pick(kernel.name, arch), time.monotonic() + limit
    expected = call().clone()
    before = clock(call)
    best, least = now, before
    rows = nearest_first(now, kernel.name not in FOLLOWS)
    most = SUMS.get(kernel.name, 0 if kernel.exact else CLOSE)
    for number, row in enumerate(rows):
        if time.monotonic() >= end:
            say(f"tune: {kernel.name}: {number} of {len(rows)} candidates tried in {limit:g} s")
            break
        if row == now or not clean(kernel, row, arch):
            continue
        with in_force(kernel.name, row, arch):
            require_close("tune", kernel.name, call(), expected, most)
            found = clock(call)
        if found < least:
            best, least = row, found
    return best, least, before


def line(name: str, arch: int, row: Row, least: float, before: float) -> str:
    """A row as the launch table has it, with its time."""
    blocks = ", ".join(f'"{block}": {size}' for block, size in row.blocks.items())
    text = f'"{name}": sm_{arch}=Row({{{blocks}}}, {row.warps}, {row.stages})'
    return f"{text}  # {least * 1e6:.1f} us, before {before * 1e6:.1f}"


def kernels_of(ops: list[str]) -> list[Kernel]:
    """The kernels of the named operations (none: all), each behind the one that it follows."""
    rooms = {_dispatch.OPS[op] for op in ops}
    return [
        kernel
        for room, found in _launch.by_room().items()
        for kernel in found
        if not ops or room in rooms
    ]


def run(ops: list[str], limit: float = math.inf) -> int:
    """Tune the kernels of the named operations (none: of all), each by the rows found before it.

    Args:
        limit: seconds after which a kernel's tuning begins no further candidate.

    Raises:
        BenchError: no GPU, or none that the launch table knows.
    """
    reason = fk.why_not("triton")
    if reason is not None or not torch.cuda.is_available():
        raise BenchError(f"--tune measures on a GPU: {reason or 'no CUDA device'}")
    device = torch.device("cuda", torch.cuda.current_device())
    arch = _launch.architecture(device) // 10 * 10
    if arch not in _launch.ARCHITECTURES:
        raise BenchError(f"--tune knows sm_80, sm_90 and sm_100, this device has sm_{arch}")
    made = calls(device)
    with contextlib.ExitStack() as found_rows:
        for kernel in kernels_of(ops):
            say(f"tune: {kernel.name}")
            with fk.use_backend("triton"):
                found = tuned(kernel, made[kernel.name](), arch, limit=limit)
            print(line(kernel.name, arch, *found), flush=True)
            found_rows.enter_context(in_force(kernel.name, found[0], arch))
    return 0
