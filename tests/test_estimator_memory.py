"""What a step of probes allocates over a straight-through step: packed codes, and little else."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from fogzo_bench import _blocks
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import fogzo_kernels as fk
from fogzo import FOGZO, STE

MARGIN = 0.05  # of the bytes of the weights
WIDEST = 4 * 4 * _blocks.WIDTH**2  # bytes of the values of the widest layer
needs_kernel = pytest.mark.skipif(
    not fk.has_kernel("probe_matmul"), reason="probe_matmul has no kernel here"
)


class Meter(TorchDispatchMode):
    """Counts the bytes of storages that operations return, until they are freed.

    Attributes:
        live, peak: bytes now, and the most so far.
        watched: sizes in bytes of float32 storages to count apart, in ``dense`` and ``most_dense``.
    """

    def __init__(self, known: list[Tensor]) -> None:
        super().__init__()
        self.live = self.peak = self.dense = self.most_dense = 0
        self.watched: set[int] = set()
        self._seen = {t.untyped_storage()._cdata for t in known}

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(out):
            if isinstance(tensor, Tensor):
                self._note(tensor)
        return out

    def _note(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        key, size = storage._cdata, storage.nbytes()
        if key in self._seen:
            return
        self._seen.add(key)
        dense = size if tensor.dtype is torch.float32 and size in self.watched else 0
        weakref.finalize(storage, self._free, key, size, dense)
        self.live += size
        self.dense += dense
        self.peak = max(self.peak, self.live)
        self.most_dense = max(self.most_dense, self.dense)

    def _free(self, key: int, size: int, dense: int) -> None:
        self.live -= size
        self.dense -= dense
        self._seen.discard(key)

    @contextmanager
    def watching(self, sizes: set[int]) -> Iterator[None]:
        self.watched, self.dense, self.most_dense = sizes, 0, 0
        try:
            yield
        finally:
            self.watched = set()


def step(kind: Any, sequences: int, autocast: bool = False, **options: Any) -> tuple[Meter, int]:
    """A metered second step on the six blocks, and the bytes of their weights."""
    model = _blocks.net(None)
    # 48 rows a sequence: no activation has the size of a weight
    x, y = (t[:sequences, :48].clone() for t in _blocks.batch())
    est = kind(model, **options)
    weights = [p for name, p in model.named_parameters() if p.dim() == 2]
    sizes = {4 * w.numel() for w in weights}
    known = [*model.parameters(), *model.buffers(), x, y]
    meter = Meter(known)

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            if torch.is_grad_enabled():
                return F.mse_loss(model(x), y)
            with meter.watching(sizes):
                return F.mse_loss(model(x), y)

    est.backward(closure)
    model.zero_grad()
    with meter:
        est.backward(closure)
    return meter, sum(4 * w.numel() for w in weights)


CASES: dict[str, dict[str, Any]] = {
    "one probe": {},
    "four": {"probes": 4},
    "forward": {"difference": "forward"},
    "int8": {"probe_dtype": "int8"},
    "autocast": {"autocast": True},
    "batched": {"probes_mode": "batched"},
}


@needs_kernel
@pytest.mark.parametrize(("case", "sequences"), [*((case, 1) for case in CASES), ("one probe", 32)])
def test_a_step_takes_packed_codes_and_five_percent_of_the_weights(case, sequences):
    options = CASES[case]
    same = {"autocast": options.get("autocast", False)}
    plain, size = step(STE, sequences, **same)
    meter, _ = step(FOGZO, sequences, **options)
    codes = 2 * options.get("probes", 1) * size * 2 / 32  # 2 bits of 32, both sides
    assert meter.peak - plain.peak <= codes + MARGIN * size
    # and what stays: nothing of the probes but numbers
    assert meter.live - plain.live <= MARGIN * size
    if case != "batched":  # torch.vmap hides what it allocates: tests/test_estimator_allocations.py
        assert meter.most_dense <= WIDEST


@needs_kernel
def test_the_watch_sees_weights_made_of_codes():
    """A forward difference multiplies by float32 values: the count above is of something."""
    meter, _ = step(FOGZO, 1, difference="forward")
    assert meter.most_dense == WIDEST


def test_the_meter_counts_what_lives():
    with Meter([]) as meter:
        a = torch.zeros(1000)
        b = a + 1
        a.add_(b)
        del b
        c = a.view(10, 100)
    assert meter.peak == 8000
    del a
    assert meter.live == 4000
    del c
    assert meter.live == 0
