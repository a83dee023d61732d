"""Native kernels under several Python threads and processes, and from the command line."""

from __future__ import annotations

import contextvars
import multiprocessing
import os
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from helpers import assert_same
from test_known_answers import DIGEST
from torch.utils.data import DataLoader, Dataset

import fogzo_kernels as fk
from fogzo_kernels import _array, _native

pytestmark = pytest.mark.skipif(
    fk.why_not("cpu") is not None, reason="the native module is not built"
)
SHAPE = (64, 2048)  # enough work for a second thread
WHERE: dict[str, Any] = {"seed": 5, "step": 1, "tensor": 2}
HANG_S = 60  # a process that has not ended by then waits for ever


def draw() -> Any:
    return fk.noise(SHAPE, "hardtanh", **WHERE)


@pytest.fixture
def two_threads():
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def test_torch_sets_the_number_of_threads():
    before = torch.get_num_threads()
    try:
        for count in (1, 2, 3):
            torch.set_num_threads(count)
            assert _array.threads() == count
    finally:
        torch.set_num_threads(before)


def test_other_python_threads_run_during_a_native_call():
    """A thread that counts advances inside a call, though no thread is ever made to pause."""
    out = np.empty((1, 1 << 21), np.float32)
    count, ended = [0], threading.Event()

    def counting() -> None:
        while not ended.is_set():
            count[0] += 1
            time.sleep(0)  # gives the lock away, as the calls below must

    noise, address = _native.cpu().noise, out.ctypes.data
    other, before = threading.Thread(target=counting), sys.getswitchinterval()
    sys.setswitchinterval(1000.0)
    try:
        other.start()
        for _ in range(200):
            start = count[0]
            noise(address, 0, 1, out.size, 0, out.size, 2, 0, 0, 0, 0, 0, 1)
            end = count[0]
            if end > start:
                break
    finally:
        ended.set()
        sys.setswitchinterval(before)
        other.join()
    assert end > start


def test_threads_with_backends_of_their_own(two_threads):
    """Each Python thread names another backend while one changes the instruction set."""
    grid, scale = fk.Grid("mid-rise", 3), torch.ones(5, 1)
    w, grad = torch.randn(5, 1031), torch.randn(5, 1031)
    guided = {**WHERE, "gamma": 0.5, "norm": 2.0, "form": "codes", "probes": 2}

    def work(backend: str, count: int) -> list[Any]:
        with fk.use_backend(backend):
            return [fk.perturb_quantize(w, grad, scale, grid, **guided) for _ in range(count)]

    def change(count: int) -> list[Any]:
        for i in range(count):
            _native.cpu().set_isa(("scalar", "auto")[i % 2])
        return []

    want = work("reference", 1)[0]
    try:
        with ThreadPoolExecutor(5) as pool:
            jobs = [pool.submit(work, name, n) for name, n in
                    (("cpu", 40), ("reference", 4), ("auto", 40), ("cpu", 40))]  # fmt: skip
            jobs.append(pool.submit(change, 2000))
            for job in jobs:
                for got in job.result():
                    assert_same(got, want)
    finally:
        _native.cpu().set_isa("auto")


def test_a_backend_is_named_for_one_context():
    with fk.use_backend("reference"):
        inside = contextvars.copy_context()
        other = ThreadPoolExecutor(1).submit(fk._dispatch.forced).result()
    assert inside.run(fk._dispatch.forced) == "reference"
    assert other == fk._dispatch.forced() != "reference"


def child(queue: Any) -> None:
    queue.put((_array.threads(), draw().numpy().tobytes()))


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_child_process_of_a_process_with_threads(method, two_threads):
    """After a parallel region here: a forked child has one thread, a spawned one all of its own."""
    want = draw().numpy().tobytes()
    context = multiprocessing.get_context(method)
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), daemon=True)
    process.start()
    try:
        threads, got = queue.get(timeout=HANG_S)
        process.join(HANG_S)
    finally:
        process.kill()
    assert got == want
    assert process.exitcode == 0
    assert method == "spawn" or threads == 1


IMPORTS_IN_A_FORK = """
import multiprocessing
import torch

def child(queue):
    import fogzo_kernels as fk
    from fogzo_kernels import _array
    fk.noise((64, 2048), "hardtanh", seed=1, step=0, tensor=0)
    queue.put(_array.threads())

if __name__ == "__main__":
    torch.set_num_threads(2)
    (torch.ones(4_000_000) + 1).sum()  # a parallel region
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    process = context.Process(target=child, args=(queue,), daemon=True)
    process.start()
    try:
        print(queue.get(timeout=30))
    finally:
        process.kill()
"""


def test_a_child_process_that_is_the_first_to_import(tmp_path):
    (tmp_path / "first.py").write_text(IMPORTS_IN_A_FORK)
    done = subprocess.run(
        [sys.executable, tmp_path / "first.py"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, "1\n"), done.stderr


class Drawn(Dataset[Any]):
    """Items that a loader's worker makes with native kernels."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index: int) -> Any:
        return fk.noise(SHAPE, "hardtanh", seed=5, step=index, tensor=2)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_workers_of_a_data_loader(two_threads):
    draw()
    workers = DataLoader(Drawn(), batch_size=None, num_workers=2, timeout=HANG_S)
    for step, got in enumerate(workers):
        assert_same(got, fk.noise(SHAPE, "hardtanh", seed=5, step=step, tensor=2))


@pytest.mark.parametrize("isa", ["scalar", "avx2"])
@pytest.mark.parametrize("threads", ["1", "2"])
def test_selftest_prints_the_reference_hash(isa, threads):
    done = subprocess.run(
        [sys.executable, "-m", "fogzo.cli", "selftest", "--backend", "cpu"],
        env={**os.environ, "FOGZO_ISA": isa, "OMP_NUM_THREADS": threads},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, f"{DIGEST}\n"), done.stderr
