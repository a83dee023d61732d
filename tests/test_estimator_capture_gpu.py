"""Steps of the estimators captured in CUDA graphs: each replay is the next step.

Never run yet on a machine with a GPU; tests/test_estimator_capture.py has a stand-in on the CPU.
"""

from __future__ import annotations

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
    assert_drawn_at,
    net,
)
from torch import nn

from fogzo import FOGZO, STE

pytestmark = pytest.mark.gpu


def eagerly(there: Trained, steps: int) -> None:
    """Steps on a stream of their own, as before a capture."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for batch in BATCHES[:steps]:
            there.take(batch)
            there.step()
            there.unscaled()
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()


def captured(there: Trained) -> torch.cuda.CUDAGraph:
    eagerly(there, BEFORE)
    there.optimizer.zero_grad()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        there.step()
    return graph


def replay(there: Trained, graph: torch.cuda.CUDAGraph, number: int) -> None:
    there.take(BATCHES[number])
    graph.replay()
    there.unscaled()
    torch.cuda.synchronize()


def assert_close(got: nn.Module, want: nn.Module, when: str) -> None:
    """Products may sum in another order in a graph than outside of it."""
    pairs = zip(got.state_dict().items(), want.state_dict().values(), strict=True)
    for (name, mine), theirs in pairs:
        torch.testing.assert_close(mine, theirs, msg=lambda m, n=name: f"{n}, {when}: {m}")


def assert_replays_follow(there: Trained, eager: Trained, when: str) -> None:
    """Replays of the captured step give the weights of as many eager ones."""
    graph = captured(there)
    eagerly(eager, BEFORE)
    for number in range(BEFORE, BEFORE + REPLAYS):
        replay(there, graph, number)
        eager.take(BATCHES[number])
        eager.step()
    assert_close(there.model, eager.model, when)


@pytest.mark.parametrize("name", CASES)
def test_replays_are_the_steps_of_an_eager_run(name: str) -> None:
    """Forward, backward, probes and the optimizer's step in one graph, replayed three times."""
    case = CASES[name]
    there, eager = Trained(case, True, "cuda"), Trained(case, True, "cuda")
    graph = captured(there)
    eagerly(eager, BEFORE)
    for number in range(BEFORE, BEFORE + REPLAYS):
        replay(there, graph, number)
        eager.take(BATCHES[number])
        eager.step()
        eager.unscaled()
        assert_close(there.model, eager.model, f"replay {number - BEFORE}")
        assert there.est.state_dict() == eager.est.state_dict()
        assert float(there.est.last.gamma) == float(eager.est.last.gamma)
    assert int(there.est.calls) == (BEFORE + REPLAYS) * case.calls


@pytest.mark.parametrize("name", ["ramp", "rademacher", "NSPSA, without a backward pass"])
def test_a_replay_draws_by_its_own_number(name: str) -> None:
    """Flips and gradients of three replays: the reference's at steps t, t + 1 and t + 2."""
    there = Trained(CASES[name], True, "cuda")
    graph = captured(there)
    found = []
    for step in range(BEFORE, BEFORE + REPLAYS):
        latent = [t.weight.detach().cpu().clone() for t in there.est._targets]
        replay(there, graph, step)
        assert_drawn_at(there, step, latent)
        found.append(there.est.last.losses.clone())
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[1], found[2])


def test_a_state_loaded_after_the_capture_is_what_replays_continue() -> None:
    there = Trained(CASES["ramp"], True, "cuda")
    graph = captured(there)
    state = there.est.state_dict()
    state["calls"] = 1000
    there.est.load_state_dict(state)
    latent = [t.weight.detach().cpu().clone() for t in there.est._targets]
    replay(there, graph, 0)
    assert_drawn_at(there, 1000, latent)
    assert float(there.est.last.gamma) == there.est.gamma, "the end of the ramp"
    assert there.est.state_dict()["calls"] == 1001


def test_an_optimizer_that_counts_on_the_device() -> None:
    there, eager = (Trained(CASES["ramp"], True, "cuda") for _ in range(2))
    for each in (there, eager):
        each.optimizer = torch.optim.Adam(each.model.parameters(), lr=1e-2, capturable=True)
    assert_replays_follow(there, eager, "with Adam")


def test_a_compiled_model_is_captured() -> None:
    there, eager = (Trained(Case(GAMMA), True, "cuda") for _ in range(2))
    for each in (there, eager):
        run = torch.compile(each.model, fullgraph=True)
        each.loss = lambda batch, run=run: F.cross_entropy(run(batch[0]), batch[1])
    assert_replays_follow(there, eager, "compiled")


@pytest.mark.parametrize("name", CASES)
def test_a_capturable_step_does_not_wait_for_the_gpu(name: str) -> None:
    there = Trained(CASES[name], True, "cuda")
    eagerly(there, BEFORE)
    torch.cuda.set_sync_debug_mode("error")
    try:
        there.gradients()
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.mark.parametrize("kind", [STE, FOGZO])
def test_a_step_that_counts_on_the_host_is_refused(kind: Any) -> None:
    there = Trained(Case(kind=kind), False, "cuda")
    eagerly(there, BEFORE)
    graph = torch.cuda.CUDAGraph()
    text = "expected capturable=True"
    with pytest.raises(RuntimeError, match=text), torch.cuda.graph(graph):
        there.step()


def test_dropout_is_refused() -> None:
    there = Trained(Case(make=lambda: net(nn.Dropout(0.4))), True, "cuda")
    eagerly(there, BEFORE)
    graph = torch.cuda.CUDAGraph()
    text = r"drew random numbers \(of cuda:0\)"
    with pytest.raises(RuntimeError, match=text), torch.cuda.graph(graph):
        there.step()
