"""Captured steps: replays without Python are the steps that an eager run takes, bit for bit.

The recorder stands in for a CUDA graph; tests/test_estimator_capture_gpu.py has the graphs.
"""

from __future__ import annotations

import contextlib
import copy
import itertools
import json
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from captured_steps import (
    BATCHES,
    BEFORE,
    CASES,
    GAMMA,
    REPLAYS,
    Case,
    Trained,
    assert_alike,
    assert_drawn_at,
    net,
)
from helpers import assert_same
from recorder import Recorder
from torch import Tensor, nn

from fogzo import FOGZO
from fogzo.monitoring import Logger


def captured(there: Trained, before: int = BEFORE) -> Recorder:
    """A recorded step after some eager ones: the step of batch ``before``."""
    for batch in BATCHES[:before]:
        there.take(batch)
        there.step()
        there.unscaled()
    there.take(BATCHES[before])
    recorder = Recorder()
    with recorder:
        there.step()
    there.unscaled()
    return recorder


@pytest.mark.parametrize("name", CASES)
def test_replays_are_the_steps_of_an_eager_run(name: str) -> None:
    case = CASES[name]
    there, plain = Trained(case, True), Trained(case, False)
    recorder = captured(there)
    used = []
    for i, batch in enumerate(BATCHES):
        plain.take(batch)
        plain.step()
        plain.unscaled()
        if i > BEFORE:
            there.take(batch)
            recorder.replay()
            there.unscaled()
        if i >= BEFORE:
            mode = case.options.get("probes_mode", "sequential")
            assert there.est.last.probes_mode == mode
            want = plain.figures()
            used.append(plain.est.last.forwards > 3 or case.kind is not FOGZO)
            got = there.figures()
            if not used[-1]:  # probes ran, and are not used
                for figure in ("losses", "difference", "predicted", "ratio", "resolution"):
                    want[figure] = got[figure]
                want["norm"], want["flips"] = got["norm"], got["flips"]
            assert_alike(got, want, f"step {i} of {name}")
    assert used == [i >= case.options.get("start", 0) for i in range(BEFORE, len(BATCHES))]


@pytest.mark.parametrize("name", ["ramp", "rademacher", "NSPSA, without a backward pass"])
def test_a_replay_draws_by_its_own_number(name: str) -> None:
    """Three replays: the reference's flips and gradients at steps t, t + 1 and t + 2."""
    there = Trained(CASES[name], True)
    recorder = captured(there)
    found = []
    for step in range(BEFORE + 1, BEFORE + 4):
        latent = [t.weight.detach().clone() for t in there.est._targets]
        recorder.replay()
        assert_drawn_at(there, step, latent)
        found.append(there.est.last.losses.clone())
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_a_gradient_alone_is_captured_and_the_optimizer_left_out(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    case = CASES["ramp"]
    there, plain = Trained(case, True), Trained(case, False)
    for each in (there, plain):
        each.step()
    recorder = Recorder()
    with recorder:
        there.gradients()
    plain.gradients()
    for _ in range(REPLAYS):
        for each in (there, plain):
            each.optimizer.step()
        recorder.replay()
        plain.gradients()
        for mine, theirs in zip(there.model.parameters(), plain.model.parameters(), strict=True):
            assert_same(mine.grad, theirs.grad)


@pytest.mark.parametrize("start", [0, 100])
def test_a_replay_whose_probes_are_not_finite_keeps_the_gradient(start: int) -> None:
    """Before ``start`` nobody wanted their G: that is no fallback."""

    model, (x, _) = net(), BATCHES[0]
    est = FOGZO(model, gamma=0.5, start=start, capturable=True)
    own = model(x).square().mean().detach()

    def loss() -> Tensor:
        value = model(x).square().mean()
        return torch.where(value == own, value, torch.inf)  # finite without a perturbation

    loss().backward()
    plain = [p.grad for p in model.parameters()]

    def step() -> None:
        model.zero_grad()
        est.backward(loss)

    step()
    recorder = Recorder()
    with recorder:
        step()
    for count in (3, 4, 5):
        recorder.replay()
        assert not est.last.losses.isfinite().any()
        assert int(est.last.fallbacks) == int(est.fallbacks) == (0 if start else count)
        for p, gradient in zip(model.parameters(), plain, strict=True):
            assert_same(p.grad, gradient)
    est._warned = True
    assert est.state_dict()["fallbacks"] == int(est.fallbacks)


@pytest.mark.parametrize(("start", "counted"), [(0, 6), (4, 2)])
def test_steps_of_low_resolution_are_counted_by_replays(start: int, counted: int) -> None:
    """But not before ``start``, whose probes nobody uses."""
    model = net()
    est = FOGZO(model, gamma=0.5, start=start, capturable=True)
    recorder = Recorder()
    for context in (contextlib.nullcontext(), contextlib.nullcontext(), recorder):
        with context:
            est.backward(lambda: model(BATCHES[0][0]).square().mean() * 0 + 1)
    for _ in range(3):
        recorder.replay()
    assert est._resolution._state.tolist()[:2] == [counted, 0.0]


def test_a_replay_with_a_loss_that_is_not_finite_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(CASES["constant gamma"], True)
    recorder = captured(there)
    there.est.raise_if_failed()
    there.batch[0].fill_(torch.nan)
    recorder.replay()
    there.est._warned = True  # of fallbacks
    with pytest.raises(FloatingPointError, match="the loss and the norm of the gradient not f"):
        there.est.raise_if_failed()
    there.est.raise_if_failed()


def test_a_state_is_loaded_into_what_a_graph_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Back to the state and the weights before the capture: replays take the same steps again."""
    case = CASES["ramp"]
    there = Trained(case, True)
    recorder = captured(there)
    states = there.est, there.model, there.optimizer
    kept = [copy.deepcopy(each.state_dict()) for each in states]
    assert type(kept[0]["calls"]) is int
    ends = []
    for _ in range(2):
        recorder.replay()
        recorder.replay()
        ends.append(there.figures())
        there.est.load_state_dict(kept[0])
        there.model.load_state_dict(kept[1])
        for p, old in zip(there.model.parameters(), kept[2]["state"].values(), strict=True):
            there.optimizer.state[p]["momentum_buffer"].copy_(old["momentum_buffer"])
    assert_alike(ends[1], ends[0], "the second time")
    twin = Trained(case, False)
    twin.est.load_state_dict(kept[0])
    assert twin.est.calls == BEFORE + 1, "a state serves both kinds"
    kept[0]["numbers"] = {"0.weight": 1, "2.weight": 0}
    with pytest.raises(RuntimeError, match="by which a captured call draws its noise"):
        there.est.load_state_dict(kept[0])
    assert there.est.state_dict()["numbers"] == {"0.weight": 0, "2.weight": 1}
    Trained(case, True).est.load_state_dict(kept[0])


def test_a_logger_reads_the_figures_of_each_replay(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    case = CASES["ramp"]
    rows = []
    for capturable in (True, False):
        there = Trained(case, capturable)
        path = tmp_path / f"{capturable}.jsonl"
        if capturable:
            recorder = captured(there)
        else:
            for batch in BATCHES[: BEFORE + 1]:
                there.take(batch)
                there.step()
        with Logger(there.est, path, oscillation=False) as logger:
            for batch in BATCHES[BEFORE + 1 :]:
                there.take(batch)
                recorder.replay() if capturable else there.step()
                logger.log()
        rows.append(path.read_text())
    assert rows[0] == rows[1]
    steps = [json.loads(line)["step"] for line in rows[0].splitlines()]
    assert steps == list(range(BEFORE + 1, len(BATCHES)))


def test_figures_of_large_weights_are_made_in_the_call(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("fogzo.estimators.record.KEPT", 10)
    case = CASES["ramp"]
    there, plain = Trained(case, True), Trained(case, False)
    recorder = captured(there, 1)
    recorder.replay()
    for i in (0, 1, 1):
        plain.take(BATCHES[i])
        plain.step()
    assert_alike(there.figures(), plain.figures(), "with the guides let go")


def test_without_replays_calls_are_those_of_any_estimator() -> None:
    """Dropout, which only a capture refuses, included."""
    case = Case({**GAMMA, "ramp_steps": 5}, lambda: net(nn.Dropout(0.4)))
    there, plain = Trained(case, True), Trained(case, False)
    for batch in BATCHES:
        for each in (there, plain):
            torch.manual_seed(7)
            each.take(batch)
            each.step()
        assert_alike(there.figures(), plain.figures(), "eager")
    assert int(there.est.forwards) == plain.est.forwards


def test_a_compiled_model_is_trained_by_captured_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for capturable in (True, False):
        torch._dynamo.reset()
        there = Trained(Case(GAMMA), capturable)
        running = torch.compile(there.model, fullgraph=True, backend="aot_eager")
        there.loss = lambda batch, run=running: F.cross_entropy(run(batch[0]), batch[1])
        for batch in BATCHES:
            there.take(batch)
            there.step()
        found.append(there.figures())
    assert_alike(*found, "compiled")


def test_a_copy_is_held_by_no_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(CASES["constant gamma"], True)
    recorder = captured(there)
    model, est = copy.deepcopy((there.model, there.est))
    recorder.replay()
    assert (int(est.calls), int(there.est.calls)) == (BEFORE + 1, BEFORE + 2)
    state = est.state_dict()
    state["numbers"] = dict(zip(state["numbers"], itertools.count(3)))
    est.load_state_dict(state)
    est.backward(lambda: F.cross_entropy(model(BATCHES[0][0]), BATCHES[0][1]))
    assert int(est.calls) == BEFORE + 2


def test_the_recorder_refuses_what_a_graph_cannot_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.arange(4.0)
    host = {
        "item": lambda: x.sum().item(),
        "bool": lambda: bool(x.sum() > 0),
        "equal": lambda: torch.equal(x, x),
        "tolist": lambda: x.tolist(),
        "nonzero": lambda: x.nonzero(),
        "mask": lambda: x[x > 1],
        "new tensor": lambda: torch.tensor([1.0]),
        "a list as index": lambda: x[[0, 2]],
        "random": lambda: torch.rand_like(x),
        "numbers of the host": lambda: x + torch.frombuffer(bytearray(16), dtype=torch.float32),
    }
    missed = []
    for name, use in host.items():
        try:
            with Recorder():
                use()
        except AssertionError:
            continue
        missed.append(name)
    assert missed == []
    y = torch.zeros(4)
    recorder = Recorder()
    with recorder:
        y += x * 2
    recorder.replay()
    assert y.tolist() == [0.0, 4.0, 8.0, 12.0]
