"""docs/troubleshooting.md: each symptom comes about, its field says so, and the change helps."""

from __future__ import annotations

import copy
import itertools
import json
import math
import re
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from allocations import allocated_by
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, STE
from fogzo.estimators import Last
from fogzo.estimators._base import Estimator

DOCUMENT = Path(__file__).resolve().parent.parent / "docs/troubleshooting.md"
GENERATOR = torch.Generator().manual_seed(1)
X = torch.randn(256, 16, generator=GENERATOR)
Y = (X @ torch.randn(16, 4, generator=GENERATOR)).argmax(1)


def make(dropout: float = 0.0, **config: object) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.Tanh(), nn.Dropout(dropout), nn.Linear(32, 4))
    return fogzo.quantize_(model, fogzo.QuantConfig(bits=2, **config))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def train(
    est: Estimator,
    model: nn.Module,
    steps: int,
    loss: Callable[[nn.Module], Tensor] = loss_of,
    optimizer: torch.optim.Optimizer | None = None,
) -> list[Last]:
    """The figures of every step."""
    optimizer = optimizer or torch.optim.Adam(model.parameters(), lr=0.01)
    found = []
    for _ in range(steps):
        est.backward(lambda: loss(model))
        assert est.last.predicted is not None  # made now: the next call lets go of the guides
        optimizer.step()
        optimizer.zero_grad()
        found.append(est.last)
    return found


def trained(kind: type[Estimator], steps: int, loss=loss_of, **options: object) -> float:
    """The loss after so many steps of a new model."""
    model = make()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        train(kind(model, **options), model, steps, loss)
    return loss_of(model).item()


def test_the_loss_is_nan():
    model = make()
    diverging = torch.optim.SGD(model.parameters(), lr=1e30)
    with pytest.raises(FloatingPointError, match=r"closure returned (nan|inf), expected a finite"):
        train(FOGZO(model), model, 5, lambda m: m(X).square().mean(), diverging)
    assert math.isfinite(trained(FOGZO, 5, lambda m: m(X).square().mean()))

    model = make()
    least = loss_of(model).item()

    def overflows_above(m: nn.Module) -> Tensor:  # as float16 does, closer by
        loss = loss_of(m)
        return loss * math.inf if loss.item() > least else loss

    est = FOGZO(model, probes=4)
    with pytest.warns(UserWarning, match="a probe's loss was not finite in 1 steps so far"):
        est.backward(lambda: overflows_above(model))
    assert est.last.fallbacks == 1
    gradient = model[0].weight.grad.clone()
    model.zero_grad()
    STE(model).backward(lambda: loss_of(model))
    assert torch.equal(gradient, model[0].weight.grad)
    with pytest.raises(FloatingPointError, match=r"returned \[\[.*\]\] for the probes, expected f"):
        FOGZO(model, probes=4, on_nonfinite="raise").backward(lambda: overflows_above(model))


def test_the_loss_stays_flat():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32, bias=False), nn.Tanh(), nn.Linear(32, 4, bias=False))
    other = nn.Linear(4, 4)
    optimizer = torch.optim.Adam([*other.parameters(), nn.Parameter(torch.zeros(1))], lr=0.01)
    fogzo.quantize_(model, fogzo.QuantConfig(bits=2))
    est = FOGZO(model)
    losses = [last.loss.item() for last in train(est, model, 10, optimizer=optimizer)]
    assert len(set(losses)) == 1
    with pytest.raises(ValueError, match=r"optimizer lacks 0.weight, 2.weight, expected every"):
        est.check_optimizer(optimizer)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    est.check_optimizer(optimizer)
    model.zero_grad()
    losses = [last.loss.item() for last in train(est, model, 30, optimizer=optimizer)]
    assert losses[-1] < 0.8 * losses[0]


def test_fogzo_is_worse_than_the_ste():
    ste = trained(STE, 60)
    model = make()
    with pytest.warns(UserWarning, match="noise is 24x the guide: n-SPSA regime; gamma 'auto'"):
        est = FOGZO(model, gamma=0.9)
    train(est, model, 60)
    assert est.last.gamma * 640 > 1
    assert loss_of(model).item() > 1.5 * ste
    assert trained(FOGZO, 60) < 1.1 * ste


class Turned(torch.autograd.Function):
    """x, with a gradient of the wrong sign."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return -grad


def test_the_ratio_is_negative_or_near_0():
    def wrong(model: nn.Module) -> Tensor:
        return Turned.apply(loss_of(model))

    model = make()
    before = loss_of(model).item()
    found = train(FOGZO(model, gamma=1e-5), model, 30, wrong)
    ratios = torch.cat([last.ratio for last in found])
    assert ratios.median() < -0.5
    assert loss_of(model).item() < before  # it steps the other way
    assert trained(STE, 30, wrong) > before
    model = make()
    right = torch.cat([last.ratio for last in train(FOGZO(model, gamma=1e-5), model, 10)])
    assert 0.5 < right.median() < 2

    with torch.no_grad():  # no weight near an edge of its bin: nothing to measure
        model = make()
        for layer in (model[0], model[3]):
            layer.weight.copy_(layer.quantized_weight())
    est = FOGZO(model, gamma=1e-5)
    est.backward(lambda: loss_of(model))
    assert est.last.ratio == 0
    assert sum(est.last.flips.values()) == 0


def test_no_code_flips():
    model = make()
    with pytest.warns(UserWarning, match="the perturbation drowns in float32; expected a larger"):
        est = FOGZO(model, gamma=1e-11)
    with torch.no_grad():
        for layer in (model[0], model[3]):
            layer.weight.copy_(layer.quantized_weight())
    est.backward(lambda: loss_of(model))
    assert est.last.flips == {"0.weight": 0, "3.weight": 0}
    assert est.last.difference == 0
    found = fogzo.diagnose(model, lambda: loss_of(model), gamma=1e-11, verbose=False)
    assert not found.good
    assert "no code to measure by: a larger gamma, or more probes" in str(found)
    model = make()
    est = FOGZO(model, gamma=0.01)
    est.backward(lambda: loss_of(model))
    assert all(n > 0 for n in est.last.flips.values())


def test_a_step_is_slow():
    model, rows = make(), []

    def closure(batch: tuple[Tensor, Tensor]) -> Tensor:
        rows.append(len(batch[0]))
        return F.cross_entropy(model(batch[0]), batch[1])

    for options, cost, seen in (
        ({}, 3 + 2 * 4, 256 * 9),
        ({"difference": "forward"}, 3 + 4, 256 * 5),
        ({"start": 1}, 3, 256),
        ({"probe_fraction": 0.25}, 3 + 2 * 4, 256 + 8 * 64),
        ({"probe_dtype": "int8"}, 3 + 2 * 4, 256 * 9),
    ):
        rows.clear()
        est = FOGZO(model, probes=4, **options)
        est.backward(closure, batch=(X, Y))
        assert est.last.forwards == cost
        assert sum(rows) == seen
    assert est.last.float_probes == []

    def reads() -> Tensor:
        loss = loss_of(model)
        return loss / max(loss.item(), 1.0)

    est = FOGZO(model, probes=4, probes_mode="batched")
    with pytest.warns(UserWarning, match="one after the other"):
        est.backward(reads)
    assert (est.last.probes_mode, "item()" in est.last.why_sequential) == ("sequential", True)
    est.backward(lambda: loss_of(model))
    assert (est.last.probes_mode, est.last.why_sequential) == ("batched", None)


def test_memory_runs_out():
    def kept(est: Estimator, closure: Callable[[], Tensor]) -> list[int]:
        """Bytes that the forwards of a call keep for its backward pass, in order."""
        sizes: list[int] = []

        def forward() -> Tensor:
            sizes.append(0)
            with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
                return closure()

        def note(tensor: Tensor) -> Tensor:
            sizes[-1] += 0 if tensor.shape[:1] == (32,) else tensor.nbytes  # weights aside
            return tensor

        est.backward(forward)
        return sizes

    model = make()
    whole = kept(FOGZO(model, probes=2), lambda: loss_of(model))
    assert whole[0] > 0
    assert whole[1:] == [0, 0, 0, 0]
    plain = [p.grad.clone() for p in _gradients(STE(model), model, X, Y)]
    model.zero_grad()
    est = STE(model, accumulate=2)
    for part in (slice(0, 128), slice(128, 256)):
        halves = kept(est, lambda part=part: F.cross_entropy(model(X[part]), Y[part]) / 2)
        assert halves[0] < 0.55 * whole[0]
    for p, gradient in zip(model.parameters(), plain, strict=True):
        # sums of 256 terms in another order: 256 roundings of the largest
        assert torch.allclose(p.grad, gradient, rtol=0, atol=256 * 2.0**-24 * gradient.abs().max())
    sides = {
        name: allocated_by(lambda est=est: est.backward(lambda: loss_of(model)), set()).peak
        for name, est in {
            "batched": FOGZO(model, probes=8, probes_mode="batched"),
            "sequential": FOGZO(model, probes=8),
        }.items()
    }
    activations = 4 * 256 * 32  # of one layer, one side
    assert sides["batched"] > sides["sequential"] + 8 * activations
    est = FOGZO(model)
    est.backward(lambda: loss_of(model))
    assert est.last._guided is not None
    est.last.release()
    assert est.last._guided is None


def _gradients(est: Estimator, model: nn.Module, x: Tensor, y: Tensor) -> list[nn.Parameter]:
    model.zero_grad()
    est.backward(lambda: F.cross_entropy(model(x), y))
    return list(model.parameters())


def test_a_resumed_run_differs(tmp_path):
    def begun(calls: int) -> tuple[nn.Sequential, FOGZO, torch.optim.Optimizer]:
        model = make(dropout=0.2)
        est, optimizer = FOGZO(model, gamma=0.1), torch.optim.Adam(model.parameters(), lr=0.01)
        torch.manual_seed(3)
        train(est, model, calls, optimizer=optimizer)
        return model, est, optimizer

    whole, _, _ = begun(8)
    model, est, optimizer = begun(5)
    states = model.state_dict(), optimizer.state_dict(), est.state_dict(), torch.get_rng_state()
    bits = {}
    for with_est in (False, True):
        saved = copy.deepcopy(states)
        model, est, optimizer = begun(0)
        model.load_state_dict(saved[0])
        optimizer.load_state_dict(saved[1])
        if with_est:
            est.load_state_dict(saved[2])
            assert est.calls == 5
        torch.set_rng_state(saved[3])
        train(est, model, 3, optimizer=optimizer)
        bits[with_est] = model[0].weight.detach().clone()
    assert torch.equal(bits[True], whole[0].weight)
    assert not torch.equal(bits[False], whole[0].weight)

    path = tmp_path / "log.jsonl"
    model = make()
    est = STE(model)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    with fogzo.Logger(est, path) as logger:
        train(est, model, 2, optimizer=optimizer)
        logger.log()
        state = est.state_dict(), logger.state_dict()
        train(est, model, 1, optimizer=optimizer)
        logger.log()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]
    est = STE(model)
    est.load_state_dict(state[0])
    with fogzo.Logger(est, path, resume=True) as logger:
        logger.load_state_dict(state[1])
        train(est, model, 1, optimizer=optimizer)
        logger.log()
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [1, 2]


def test_the_loss_cannot_resolve_the_probes():
    model = make()
    est = FOGZO(model, gamma=1e-5)
    still = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.warns(UserWarning, match="bfloat16 loss cannot resolve the probe: compute the lo"):
        train(est, model, 100, lambda m: F.cross_entropy(m(X).bfloat16(), Y), still)
    assert est.last.resolution < 10
    est = FOGZO(model, gamma=1e-5)
    est.backward(lambda: F.cross_entropy(model(X).bfloat16().float(), Y))
    assert est.last.resolution > 10

    def far(model: nn.Module, dtype: torch.dtype = torch.float32) -> Tensor:
        return 1e5 + F.cross_entropy(model(X).to(dtype), Y)  # float32 rounds it to 0.008

    resolutions = {}
    for name, gamma, dtype in (
        ("float32", 1e-5, torch.float32),
        ("gamma", 0.5, torch.float32),
        ("float64", 1e-5, torch.float64),
    ):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*n-SPSA regime")
            est = FOGZO(model, gamma=gamma, probes=16)
        est.backward(lambda dtype=dtype: far(model, dtype))
        resolutions[name] = est.last.resolution.mean().item()
    assert resolutions["float32"] < 10
    assert resolutions["gamma"] > 1.5 * resolutions["float32"]
    assert resolutions["float64"] > 1e6


def test_the_closure_is_not_repeatable():
    model, generator = make(), torch.Generator().manual_seed(0)

    def closure() -> Tensor:
        rows = torch.randperm(256, generator=generator)[:32]
        return F.cross_entropy(model(X[rows]), Y[rows])

    with pytest.raises(RuntimeError, match="what differs first: the input of the model"):
        FOGZO(model, check=True).backward(closure)
    found = fogzo.diagnose(model, closure, verbose=False)
    assert found.differs_at == "the input of the model"
    rows = torch.randperm(256, generator=generator)[:32]
    FOGZO(model, check=True).backward(lambda b: F.cross_entropy(model(b), Y[rows]), batch=X[rows])

    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x + torch.randn(x.shape, generator=generator)

    model.insert(1, Noisy())
    found = fogzo.diagnose(model, lambda: loss_of(model), verbose=False)
    assert found.differs_at == "the output of '1' (Noisy)"
    del model[1]
    calls = itertools.count()
    found = fogzo.diagnose(model, lambda: loss_of(model) * (1 + next(calls)), verbose=False)
    assert found.differs_at == "what the closure does outside of the model's modules"


def test_every_heading_is_the_name_of_a_test():
    headings = re.findall(r"^## (.*)$", DOCUMENT.read_text(encoding="utf-8"), re.M)
    names = ["test_" + re.sub(r"\W+", "_", heading.lower()) for heading in headings]
    own = [
        name for name in globals() if name.startswith("test_") and name not in ABOUT_THE_DOCUMENT
    ]
    assert names == own
    assert len(names) >= 8


def test_every_field_that_is_named_is_there():
    text = DOCUMENT.read_text(encoding="utf-8")
    model = make()
    est = FOGZO(model)
    est.backward(lambda: loss_of(model))
    fields = set(re.findall(r"`est\.last\.(\w+)", text))
    assert len(fields) >= 6
    assert all(hasattr(est.last, field) for field in fields), fields
    others = set(re.findall(r"`est\.(\w+)", text))
    assert all(hasattr(est, other) for other in others), others
    diagnosis = fogzo.diagnose(model, lambda: loss_of(model), verbose=False)
    assert all(hasattr(diagnosis, name) for name in re.findall(r"found\.(\w+)", text))


ABOUT_THE_DOCUMENT = (
    "test_every_heading_is_the_name_of_a_test",
    "test_every_field_that_is_named_is_there",
)
