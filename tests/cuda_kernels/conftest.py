"""Tests of the CUDA kernels on the emulator of tests/cuda_on_host: a process of their own.

FOGZO_CUDA_ON_HOST must be set before fogzo_kernels is imported, so that `pytest tests` leaves this
folder out and `make cuda-host-test` runs it, with the public tests of the operations.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import fogzo_kernels as fk
from fogzo_kernels import _native

KERNELS = Path(__file__).resolve().parents[2] / "csrc/cuda"
ORDERS = {"forward": 0, "reverse": 1, "shuffled": 2}
ROTATING = 3
# Kernels that are compiled and read as machine code alone: the emulator has no such instructions.
COMPILED_ONLY: tuple[str, ...] = ()


def written() -> set[str]:
    """Names of the kernels in the sources."""
    found = set()
    for path in (*KERNELS.glob("*.cuh"), *KERNELS.glob("*.cu")):
        code = re.sub(r"//[^\n]*", "", path.read_text())
        bounds = r"(?:__launch_bounds__\([^)]*\)\s*)?"
        found |= set(re.findall(rf"__global__\s+{bounds}void\s+{bounds}(\w+)\s*\(", code))
        assert len(re.findall("__global__", code)) == len(
            re.findall(rf"__global__\s+{bounds}void\s+{bounds}\w+\s*\(", code)
        ), f"{path.name} has a kernel in another form"
    return found


def emulator() -> ctypes.CDLL:
    library = ctypes.CDLL(_native.CUDA_ON_HOST)
    library.cuda_on_host_kernels_run.restype = ctypes.c_char_p
    return library


def launched() -> set[str]:
    """Names of the kernels that have run in this process."""
    return set(emulator().cuda_on_host_kernels_run().decode().split())


def pytest_sessionstart(session: pytest.Session) -> None:
    if not _native.CUDA_ON_HOST:
        pytest.exit("FOGZO_CUDA_ON_HOST is not set: make cuda-host-test sets it", returncode=1)
    reason = fk.why_not("cuda")
    if reason is not None:
        pytest.exit(f"the emulated kernels cannot run: {reason}", returncode=1)


@pytest.fixture(params=ORDERS)
def order(request: pytest.FixtureRequest) -> Iterator[str]:
    """The order in which the threads of a block run between two barriers."""
    emulator().cuda_on_host_set_order(ORDERS[request.param])
    yield request.param
    emulator().cuda_on_host_set_order(ROTATING)


@pytest.fixture
def capability() -> Iterator[Callable[[int], None]]:
    """Sets 10 times the compute capability of the emulated device."""
    yield emulator().cuda_on_host_set_capability
    emulator().cuda_on_host_set_capability(90)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    names = written()
    missing = sorted(names - launched() - set(COMPILED_ONLY))
    terminalreporter.write_line(
        f"{len(names & launched())} kernels run on the emulator / {len(names)} kernels in csrc/cuda"
        + (f"; compile-checked only: {', '.join(COMPILED_ONLY)}" if COMPILED_ONLY else "")
        + (f"; not run: {', '.join(missing)}" if missing else "")
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With FOGZO_EVERY_KERNEL=1 a kernel that no test ran is a failure."""
    if os.environ.get("FOGZO_EVERY_KERNEL") == "1" and session.exitstatus == 0:
        session.exitstatus = int(bool(written() - launched() - set(COMPILED_ONLY)))
