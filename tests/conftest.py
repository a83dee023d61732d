"""Shared by all tests: which backends run, and hypothesis' settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from on_device import through_device

import fogzo_kernels as fk
from fogzo_kernels import _native

collect_ignore: list[str] = []
try:
    import hypothesis
except ModuleNotFoundError:  # as on a bare GPU machine: its tests need none of these files
    tests = Path(__file__).parent
    collect_ignore += [p.name for p in tests.glob("test_*.py") if "hypothesis" in p.read_text()]
else:
    hypothesis.settings.register_profile(
        "fogzo", max_examples=25, deadline=None, derandomize=True, database=None
    )
    hypothesis.settings.load_profile("fogzo")

# Triton's interpreter and the emulator of CUDA kernels run on CPU tensors; see the conftest.py of
# tests/triton_kernels and of tests/cuda_kernels.
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
ON_HOST = {"triton": INTERPRETED, "cuda": bool(_native.CUDA_ON_HOST)}

# name, instruction set, threads: the native rows must give equal bits.
WIDE = ("cpu", "avx512-vnni", 2)
BACKENDS = (
    ("reference", "auto", 1),
    ("cpu", "scalar", 1),
    ("cpu", "avx2", 2),
    WIDE,
    pytest.param(("triton", "auto", 1), marks=pytest.mark.gpu),
    pytest.param(("cuda", "auto", 1), marks=pytest.mark.gpu),
)
WIDE_OPS = ("probe_matmul",)  # the others take AVX2's kernels there


def pytest_sessionstart(session: pytest.Session) -> None:
    reason = fk.why_not("cpu")
    if os.environ.get("FOGZO_REQUIRE_NATIVE") == "1" and reason is not None:
        pytest.exit(f"FOGZO_REQUIRE_NATIVE=1 and {reason}", returncode=1)


def repeats_avx2(item: pytest.Item) -> bool:
    """Whether a test of WIDE runs the kernels that its row of AVX2 runs too."""
    callspec = getattr(item, "callspec", None)
    ops = getattr(getattr(item, "module", None), "OPS", ())
    return (
        callspec is not None
        and callspec.params.get("backend") == WIDE
        and not any(op in WIDE_OPS for op in ops)
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    import torch

    items[:] = [item for item in items if not repeats_avx2(item)]
    # "3/8": every eighth test from the fourth on, for processes side by side
    number, _, shards = os.environ.get("FOGZO_SHARD", "0/1").partition("/")
    items[:] = items[int(number) :: int(shards)]
    if not torch.cuda.is_available() and not any(ON_HOST.values()):
        no_device = pytest.mark.skip(reason="no CUDA device")
        for item in items:
            if item.get_closest_marker("gpu") is not None:
                item.add_marker(no_device)


@pytest.fixture(params=BACKENDS, ids=lambda p: "-".join(p[:2]) if p[0] == "cpu" else p[0])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Run the test on one backend; the module's OPS name the operations it must have.

    Tests hold their arrays on the CPU; those of the last rows travel to the GPU and back.
    """
    torch = pytest.importorskip("torch")
    name, isa, threads = request.param
    ops: Any = getattr(request.module, "OPS", ())
    refused = [fk.why_not(name), *(fk.capabilities()[op][name] for op in ops)]
    for reason in refused:
        if reason is not None:
            pytest.skip(reason)
    before = torch.get_num_threads()
    if name == "cpu":
        status = _native.cpu().set_isa(isa)
        if status:
            pytest.skip(_native.cpu().status_text(status))
    torch.set_num_threads(threads)
    if name in ON_HOST:
        through_device(monkeypatch, "cpu" if ON_HOST[name] else "cuda")
    try:
        with fk.use_backend(name):
            yield name
    finally:
        torch.set_num_threads(before)
        if name == "cpu":
            _native.cpu().set_isa("auto")
