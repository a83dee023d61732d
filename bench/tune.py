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
from typing import Any

import torch

import fogzo_kernels as fk
from fogzo_kernels import _launch
from fogzo_kernels._launch import Kernel, Row

from ._events import seconds
from ._options import BenchError, require_close
from ._report import say
from ._static_compile import compiled

Call = Callable[[], torch.Tensor]
GRID = fk.Grid("mid-rise", 2)
DTYPES = {"int8": "int8", "half": "bfloat16", "float32": "float32", "float8": "float8_e4m3fn"}
# Off by rounding where products are added in another order.
CLOSE = 1e-2


def candidates(row: Row) -> Iterator[Row]:
    """Other rows to try: tiles of a product from a grid, else halved and doubled blocks.

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
    name, size = next(iter(row.blocks.items()))
    for times, warps in itertools.product((0.5, 1, 2), (2, 4, 8)):
        yield replace(row, blocks={**row.blocks, name: max(1, int(size * times))}, warps=warps)


def calls(device: Any) -> dict[str, Callable[[], Call]]:
    """By kernel, what makes the public call that it is tuned for."""

    def product(size: str, dtype: str) -> Call:
        m = 8 if size == "few" else 8192
        n = k = 4096
        codes = torch.randint(0, 4, (2, n, k), dtype=torch.uint8, device=device)
        scale = torch.rand((n, 64, 1) if size == "group" else (n, 1), device=device) + 0.5
        x = torch.randn(m, k, device=device)
        x_scale = torch.ones(m, device=device) if dtype in ("int8", "float8_e4m3fn") else None
        x = (x * 30).to(torch.int8) if dtype == "int8" else x.to(getattr(torch, dtype))
        given: Any = fk.pack(codes, 2)
        if size == "flips":
            index = torch.arange(0, n * k, 9973, device=device)
            count = torch.tensor([len(index)] * 2, device=device)
            new = (codes[0].reshape(-1)[index] + 1) % 4
            given = fk.Flips(codes[0], torch.stack([index] * 2), torch.stack([new] * 2), count)
        out = torch.empty((2, m, n), device=device, dtype=x.dtype if x_scale is None else None)
        return lambda: fk.probe_matmul(x, given, scale, GRID, x_scale=x_scale, out=out)

    def rotation(block: int) -> Call:
        x = torch.randn(8192, 16384, device=device)
        out = torch.empty_like(x)
        return lambda: fk.hadamard(x, block, out=out)

    def activation() -> Call:
        x = torch.randn(8192, 4096, device=device)
        out = torch.empty_like(x, dtype=torch.int8), torch.empty(8192, device=device)
        return lambda: fk.quantize_activation(x, out=out)[0]

    def noise() -> Call:
        out = torch.empty(8192, 16384, device=device)
        where: Any = {"seed": 1, "step": 2, "tensor": 3, "probe": 0}
        return lambda: fk.noise(out.shape, "clipped", **where, out=out)

    def fake_quantize() -> Call:
        w = torch.randn(8192, 16384, device=device)
        scale, out = torch.ones(8192, 1, device=device), torch.empty_like(w)
        return lambda: fk.fake_quantize(w, scale, GRID, out=out)

    made: dict[str, Callable[[], Call]] = {
        "hadamard.blocks": lambda: rotation(128),
        "hadamard.runs": lambda: rotation(16384),
        "quantize_activation": activation,
        "noise": noise,
        "fake_quantize": fake_quantize,
        "probe_matmul.flips": lambda: product("flips", "int8"),
    }
    for size, (row, dtype) in itertools.product(("few", "many", "group"), DTYPES.items()):
        made[f"probe_matmul.{size}.{row}"] = lambda s=size, d=dtype: product(s, d)  # type: ignore
    return made


def nearest_first(row: Row) -> list[Row]:
    """The candidates, those first that differ from a row in the fewest numbers.

    Example:
        >>> nearest_first(Row({"SIZE": 4096}, 8))[0]
        Row(blocks={'SIZE': 4096}, warps=8, stages=1)
    """

    def differences(other: Row) -> int:
        sizes = sum(other.blocks[name] != size for name, size in row.blocks.items())
        return sizes + (other.warps != row.warps) + (other.stages != row.stages)

    return sorted(candidates(row), key=differences)


def clean(kernel: Kernel, row: Row, arch: int) -> bool:
    """Whether every case of a kernel compiles with a row and has no finding."""
    with in_force(kernel.name, row, arch):
        return all(not compiled(kernel, case, arch).findings for case in kernel.cases)


@contextlib.contextmanager
def in_force(name: str, row: Row, arch: int) -> Iterator[None]:
    """Launch a kernel by another row inside the ``with`` block."""
    before = dict(_launch.TABLE[name])
    _launch.TABLE[name][arch] = row
    try:
        yield
    finally:
        _launch.TABLE[name] = before


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
    rows = nearest_first(now)
    for number, row in enumerate(rows):
        if time.monotonic() >= end:
            say(f"tune: {kernel.name}: {number} of {len(rows)} candidates tried in {limit:g} s")
            break
        if row == now or not clean(kernel, row, arch):
            continue
        with in_force(kernel.name, row, arch):
            require_close("tune", kernel.name, call(), expected, 0 if kernel.exact else CLOSE)
            found = clock(call)
        if found < least:
            best, least = row, found
    return best, least, before


def line(name: str, arch: int, row: Row, least: float, before: float) -> str:
    """A row as the launch table has it, with its time."""
    blocks = ", ".join(f'"{block}": {size}' for block, size in row.blocks.items())
    text = f'"{name}": sm_{arch}=Row({{{blocks}}}, {row.warps}, {row.stages})'
    return f"{text}  # {least * 1e6:.1f} us, before {before * 1e6:.1f}"


def run(ops: list[str], limit: float = math.inf) -> int:
    """Tune the kernels of the named operations (none: of all that have a call here).

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
    for kernel in _launch.kernels():
        if kernel.name in made and (not ops or kernel.name.partition(".")[0] in ops):
            say(f"tune: {kernel.name}")
            with fk.use_backend("triton"):
                found = tuned(kernel, made[kernel.name](), arch, limit=limit)
            print(line(kernel.name, arch, *found), flush=True)
    return 0
