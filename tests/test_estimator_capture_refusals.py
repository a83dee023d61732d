"""What a captured step cannot hold is refused by name, and nothing has changed then."""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from captured_steps import (
    CASES,
    Case,
    Trained,
    assert_alike,
    net,
)
from recorder import Recorder
from torch import nn

import fogzo
from fogzo import FOGZO, NSPSA, STE
from fogzo.estimators import _capture


def in_capture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_capture, "capturing", lambda: True)


def refused(there: Trained, monkeypatch: pytest.MonkeyPatch, error: Any, text: str) -> None:
    """A capture is refused by that text, and nothing has changed."""
    before, last = copy.deepcopy(there.figures() if there.est.last else {}), there.est.last
    state, random = there.est.state_dict(), torch.get_rng_state()
    grads = [p.grad for p in there.model.parameters()]
    with monkeypatch.context() as patch:
        in_capture(patch)
        with pytest.raises(error, match=text):
            there.est.backward(there.loss, batch=there.batch)
    assert there.est.state_dict() == state
    assert torch.equal(torch.get_rng_state(), random)
    assert there.est.last is last
    for p, grad in zip(there.model.parameters(), grads, strict=True):
        assert p.grad is grad
    if before:
        assert_alike(there.figures(), before, "after the refusal")


@pytest.mark.parametrize("kind", [STE, NSPSA, FOGZO])
def test_a_capture_needs_capturable_and_an_eager_call(
    kind: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    there = Trained(Case(kind=kind), False)
    there.step()
    refused(there, monkeypatch, RuntimeError, "repeat this very step, expected capturable=True")
    there = Trained(Case(kind=kind), True)
    refused(there, monkeypatch, RuntimeError, "captured before an eager call, expected one first")


def test_an_eager_call_without_probes_is_not_one(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(CASES["constant gamma"], True)
    fogzo.disable_quantization(there.model)
    there.step()
    fogzo.enable_quantization(there.model)
    refused(there, monkeypatch, RuntimeError, "captured before an eager call")


def test_a_replaced_module_needs_an_eager_call_too(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(Case(make=lambda: net(nn.Identity())), True)
    there.step()
    there.model[1] = nn.Tanh()
    refused(there, monkeypatch, RuntimeError, "captured before an eager call, expected one first")
    there.step()
    with Recorder():
        there.step()


def test_random_numbers_in_the_forward_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(Case(make=lambda: net(nn.Dropout(0.4))), True)
    there.step()
    text = r"closure drew random numbers \(of cpu\), expected none in a captured step"
    refused(there, monkeypatch, RuntimeError, text)
    there.model.eval()
    refused(there, monkeypatch, RuntimeError, text)
    there.step()
    with Recorder():
        there.step()
    there.model.train()
    refused(there, monkeypatch, ValueError, "another mode")


def test_a_straight_through_step_may_draw_random_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch's own generator for captured steps makes them anew."""
    there = Trained(Case(make=lambda: net(nn.Dropout(0.4)), kind=STE), True)
    there.step()
    in_capture(monkeypatch)
    there.step()


def test_what_cannot_be_captured_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="on_nonfinite is 'raise', which reads losses"):
        FOGZO(net(), capturable=True, on_nonfinite="raise")
    model = net()
    model.extra = nn.Parameter(torch.zeros(2, device="meta"))
    with pytest.raises(ValueError, match="model has parameters on cpu and meta, expected one dev"):
        NSPSA(model, capturable=True)


def test_processes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ValueError, match="capturable is True, with the processes"):
        FOGZO(net(), capturable=True, process_group=object())


def test_counters_follow_a_model_that_moves(monkeypatch: pytest.MonkeyPatch) -> None:
    there = Trained(CASES["constant gamma"], True)
    there.step()
    elsewhere = torch.device("meta")
    calls = there.est.calls
    there.est.calls = calls.to(elsewhere)  # as if the model had left
    refused_calls = there.est.calls
    with monkeypatch.context() as patch:
        in_capture(patch)
        with pytest.raises(RuntimeError, match="before an eager call on this device"):
            there.est.backward(there.loss, batch=there.batch)
    assert there.est.calls is refused_calls
    there.est.calls = calls
    there.step()
    assert int(there.est.calls) == 2
