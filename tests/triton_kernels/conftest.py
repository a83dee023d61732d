"""Tests of the Triton kernels in Triton's interpreter, on CPU tensors: a process of their own.

TRITON_INTERPRET must be set before triton is imported, so that `pytest tests` leaves this folder
out and `make triton-test` runs it alone.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator

assert "triton" not in sys.modules, "triton was imported before TRITON_INTERPRET was set"
os.environ["TRITON_INTERPRET"] = "1"

import pytest  # noqa: E402

import fogzo_kernels as fk  # noqa: E402
from fogzo_kernels import _launch  # noqa: E402


def pytest_sessionstart(session: pytest.Session) -> None:
    reason = fk.why_not("triton")
    if reason is not None:
        pytest.exit(f"the interpreter cannot run: {reason}", returncode=1)


@pytest.fixture
def backend() -> Iterator[str]:
    """Run the test on the Triton backend."""
    with fk.use_backend("triton"):
        yield "triton"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    names = [kernel.name for kernel in _launch.kernels()]
    missing = sorted(set(names) - _launch.launched)
    terminalreporter.write_line(
        f"{len(names) - len(missing)} kernels interpreted / {len(names)} kernels in the package"
        + (f"; not: {', '.join(missing)}" if missing else "")
    )


def pytest_sessionfinish(session: pytest.Session) -> None:
    """With FOGZO_EVERY_KERNEL=1 a kernel that no test ran is a failure."""
    if os.environ.get("FOGZO_EVERY_KERNEL") == "1" and session.exitstatus == 0:
        names = {kernel.name for kernel in _launch.kernels()}
        session.exitstatus = int(bool(names - _launch.launched))
