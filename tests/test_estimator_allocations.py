"""The memory of steps whose allocations torch.vmap hides, of convolutions, and under autocast."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from allocations import PROBE, Allocated, allocated_by
from fogzo_bench import _blocks
from torch import Tensor, nn
from torch.profiler import record_function

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, STE, QuantConfig

MARGIN = 0.05  # of the bytes of the weights
needs_kernel = pytest.mark.skipif(
    not fk.has_kernel("probe_matmul"), reason="probe_matmul has no kernel here"
)
Job = tuple[nn.Module, Tensor, Tensor]


def blocks() -> Job:
    # 40 rows: no activation has the size of a weight, in neither dtype
    x, y = (t[:1, :40].clone() for t in _blocks.batch())
    return _blocks.net(None), x, y


def convolutions(**config: Any) -> Job:
    torch.manual_seed(0)
    middle = [nn.Sequential(nn.Conv2d(128, 128, 3, padding=1), nn.ReLU()) for _ in range(8)]
    model = fogzo.quantize_(nn.Sequential(*middle), QuantConfig(bits=2, **config))
    return model, torch.randn(1, 128, 2, 2), torch.randn(1, 128, 2, 2)


JOBS: dict[str, Callable[[], Job]] = {
    "blocks": blocks,
    "convolutions": convolutions,
    "rotated convolutions": lambda: convolutions(scale="quest"),
}


def step(kind: Any, job: str, autocast: bool = False, **options: Any) -> tuple[Allocated, int, int]:
    """A second step's allocations; bytes of the weights, and of the widest."""
    model, x, y = JOBS[job]()
    est = kind(model, **options)
    numbers = [p.numel() for p in model.parameters() if p.dim() > 1]
    # of one side, and of both at once
    sizes = {sides * width * n for n in numbers for width in (4, 2) for sides in (1, 2)}

    def loss() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            return F.mse_loss(model(x), y)

    def closure() -> Tensor:
        if torch.is_grad_enabled():
            return loss()
        with record_function(PROBE):
            return loss()

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop")
        est.backward(closure)
        model.zero_grad()
        found = allocated_by(lambda: est.backward(closure), sizes)
    if options.get("probes_mode") == "batched":
        assert est.last.probes_mode == "batched"
    return found, 4 * sum(numbers), 4 * max(numbers)


CASES: dict[str, dict[str, Any]] = {
    "sequential": {},
    "forward": {"difference": "forward"},
    "int8": {"probe_dtype": "int8"},
    "autocast": {"autocast": True},
    "batched": {"probes_mode": "batched"},
    "batched, four": {"probes_mode": "batched", "probes": 4},
    "batched, forward": {"probes_mode": "batched", "difference": "forward"},
    "batched, int8": {"probes_mode": "batched", "probe_dtype": "int8"},
    "batched, autocast": {"probes_mode": "batched", "autocast": True},
}


ROTATED = ("sequential", "batched", "batched, autocast")


@needs_kernel
@pytest.mark.parametrize(
    ("case", "job"),
    [(case, job) for job in JOBS for case in (CASES if job != "rotated convolutions" else ROTATED)],
)
def test_a_step_takes_packed_codes_five_percent_and_one_layers_values(case, job):
    options = CASES[case]
    plain, size, widest = step(STE, job, autocast=options.get("autocast", False))
    found, _, _ = step(FOGZO, job, **options)
    codes = 2 * options.get("probes", 1) * size * 2 / 32  # 2 bits of 32, both sides
    # of 1.25: a byte for each code of the layer has the size of another layer's values
    assert found.most_watched <= (1.25 if job == "blocks" else 1.0) * widest
    assert found.left - plain.left <= MARGIN * size
    if job == "rotated convolutions":  # gradients, and rotated copies of them and of the weights
        patches = 2 * 2 * 4 * (4 * 1152)  # of a layer's 4 places, both sides, float32, and turned
        assert found.peak <= 3 * size + codes + MARGIN * size + widest + patches
        return
    # oneDNN copies a layer's values into an order of its own, and they are an eighth of all
    layer = widest if job == "convolutions" else 0
    assert found.peak - plain.peak <= codes + MARGIN * size + layer


@needs_kernel
def test_the_ledger_sees_values_inside_of_vmap(monkeypatch):
    """Those of all sides, where a layer asks for them: the counts above are of something."""

    def together(self: Any, x: Tensor, bias: Any, of: Any = F.linear) -> Tensor:
        return of(x, self.values(), bias)

    monkeypatch.setattr("fogzo.layers.coded_weight.CodedWeight.product", together)
    found, _, widest = step(FOGZO, "convolutions", probes_mode="batched")
    assert found.most_watched >= 2 * widest
