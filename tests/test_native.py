"""The native module at its own border: instruction sets, threads, texts, random calls."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
_cpu = pytest.importorskip("fogzo_kernels._cpu", reason="the native module is not built")


def noise(threads: int = 1, surrogate: int = 0) -> np.ndarray:
    out = np.full((3, 20011), np.nan, np.float32)
    status = _cpu.noise(
        out.ctypes.data, 0, 3, 20011, 5, 30000, surrogate, 0, 2**64 - 1, 7, 3, 1, threads
    )
    assert status == 0, _cpu.status_text(status)
    return out


@pytest.fixture
def restore_isa():
    yield
    _cpu.set_isa("auto")


@pytest.mark.parametrize("surrogate", [0, 2, 4])
def test_every_instruction_set_draws_the_same_bits(surrogate, restore_isa):
    assert _cpu.set_isa("scalar") == 0
    assert _cpu.isa() == "scalar"
    scalar = noise(surrogate=surrogate)
    assert _cpu.set_isa("auto") == 0
    np.testing.assert_array_equal(scalar.view(np.int32), noise(surrogate=surrogate).view(np.int32))


def test_threads_change_no_bit():
    np.testing.assert_array_equal(noise(1).view(np.int32), noise(4).view(np.int32))


def test_a_tiny_gamma_keeps_every_bit(restore_isa):
    """B so small that B times a power of two would leave the normal range of float32."""
    bits = []
    for isa in ("scalar", "auto"):
        assert _cpu.set_isa(isa) == 0
        grad, scale = np.zeros((1, 2048), np.float32), np.ones(1, np.float32)
        differences, out = np.ones(1, np.float32), np.full((1, 2048), np.nan, np.float32)
        pointers = [a.ctypes.data for a in (grad, scale, differences, out)]
        sizes = (1, 2048, 1, 1, 0, 2048)
        status = _cpu.assemble_gradient(*pointers, 0, *sizes, 0, 0, 1, 0, 5, 0, 0, 1e-70, 0.0, 1)
        assert status == 0, _cpu.status_text(status)
        bits.append(out.view(np.int32).copy())
    np.testing.assert_array_equal(*bits)


def test_an_unknown_instruction_set_is_refused():
    before = _cpu.isa()
    status = _cpu.set_isa("mmx")
    assert _cpu.status_text(status).startswith("isa is not available, expected auto, scalar")
    assert _cpu.isa() == before


@pytest.mark.parametrize("name", ["scalar", "no-such-set"])
def test_the_environment_chooses_the_instruction_set(name):
    code = "from fogzo_kernels import _cpu; print(_cpu.isa())"
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "FOGZO_ISA": name},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "scalar"


def test_every_status_says_argument_got_expected():
    texts = list(iter(map(_cpu.status_text, itertools.count(1)).__next__, _cpu.status_text(-1)))
    assert len(texts) == 29
    assert len(set(texts)) == len(texts)
    for text in texts:
        argument, _, rest = text.partition(" ")
        assert argument.isidentifier()
        assert rest.startswith(("is ", "has ", "does ", "gives ", "reported "))
        assert ", expected " in rest


def test_random_and_broken_calls():
    done = subprocess.run(
        [sys.executable, ROOT / "tests/tools/fuzz_native.py", "--cases", "300", "--seed", "7"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 cases" in done.stdout
