"""Schedules, warnings, unused and frozen weights, counters and state."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE, QuantConfig

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


class Net(nn.Module):
    """Two same-shape layers, and one that the forward may leave out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.spare = (nn.Linear(4, 4, bias=False) for _ in range(3))
        self.use_spare = False

    def forward(self, x: Tensor) -> Tensor:
        y = self.b(torch.tanh(self.a(x)))
        return self.spare(y) if self.use_spare else y


def make(config: QuantConfig | None = None) -> Net:
    torch.manual_seed(0)
    return fogzo.quantize_(Net(), config)


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(6) % 3)


def gammas(est: FOGZO, model: nn.Module, calls: int) -> list[float]:
    found = []
    for _ in range(calls):
        est.backward(lambda: loss_of(model))
        found.append(est.last.gamma)
        assert len(est.last.difference) == (0 if est.last.forwards == 3 else est.probes)
    return found


def test_automatic_gamma_is_one_over_the_weights_at_most_a_thousandth():
    assert FOGZO(make()).gamma == 1e-3
    wide = fogzo.quantize_(nn.Linear(100, 20))
    assert FOGZO(wide).gamma == 1 / 2000


def test_gamma_ramps_and_start_delays_the_probes():
    model = make()
    est = FOGZO(model, gamma=0.5, ramp_steps=4, start=2, allow_unused=True)
    assert gammas(est, model, 6) == [0.0, 0.0, 0.25, 0.375, 0.5, 0.5]
    assert est.forwards == 2 * 3 + 4 * 5


def test_accumulate_holds_the_schedule_but_not_the_noise():
    model = make()
    est = FOGZO(model, gamma=0.5, ramp_steps=4, start=1, accumulate=2, allow_unused=True)
    assert gammas(est, model, 6) == [0.0, 0.0, 0.125, 0.125, 0.25, 0.25]
    draws = []
    est = FOGZO(model, gamma=1.0, accumulate=2, allow_unused=True)
    for _ in range(2):
        est.backward(lambda: loss_of(model))
        draws.append(est.last.losses)
    assert not torch.equal(*draws)


def test_before_start_the_step_is_the_plain_one():
    model, plain = make(), make()
    FOGZO(model, start=1, allow_unused=True).backward(lambda: loss_of(model))
    STE(plain, allow_unused=True).backward(lambda: loss_of(plain))
    assert torch.equal(model.a.weight.grad, plain.a.weight.grad)


def test_a_gamma_in_the_n_spsa_regime_warns_with_figures():
    wide = fogzo.quantize_(nn.Linear(100, 100))
    text = "FOGZO: gamma 0.1 with 10,000 weights: noise is 32x the guide: n-SPSA regime; "
    with pytest.warns(UserWarning, match=re.escape(text + "gamma 'auto' would be 0.0001")):
        FOGZO(wide, gamma=0.1)


@pytest.mark.parametrize(
    ("bits", "gamma", "drowns"),
    [(8, 3.8e-6, True), (8, 3.9e-6, False), (2, 1e-9, False), (2, 1e-11, True)],
)
def test_a_perturbation_that_drowns_in_float32_warns(bits, gamma, drowns):
    # 8 bits: 64 ulp(128) = 64 * 2^-16 bins against sqrt(gamma) / 2: gamma = 3.81e-6
    # 2 bits: 64 ulp(2) = 64 * 2^-22 bins: gamma = 9.3e-10
    model = make(QuantConfig(grid="mid-tread", bits=bits))
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        FOGZO(model, gamma=gamma)
    assert any("drowns in float32" in str(w.message) for w in seen) == drowns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        FOGZO(model, gamma=0.0)


@pytest.mark.parametrize("kind", [STE, NSPSA, FOGZO])
def test_a_weight_that_is_never_used_is_an_error_by_name_on_the_first_call(kind):
    model = make()
    text = (
        f"{kind.__name__}.backward: closure never used the quantized spare.weight, "
        "expected every quantized weight of the estimator's own model in the forward (allow_unused="
    )
    with pytest.raises(RuntimeError, match=re.escape(text)):
        kind(model).backward(lambda: loss_of(model))
    assert model.a.weight.grad is None
    est = kind(model, allow_unused=True)
    est.backward(lambda: loss_of(model))
    assert model.spare.weight.grad is None


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_a_weight_unused_in_a_later_call_is_skipped(kind):
    model = make()
    model.use_spare = True
    est = kind(model)
    est.backward(lambda: loss_of(model))
    assert list(est.last.flips) == ["a.weight", "b.weight", "spare.weight"]
    model.zero_grad()
    model.use_spare = False
    est.backward(lambda: loss_of(model))
    assert model.spare.weight.grad is None
    assert list(est.last.flips) == ["a.weight", "b.weight"]


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_a_frozen_weight_is_skipped_and_renumbers_nothing(kind):
    model, frozen = make(), make()
    frozen.a.weight.requires_grad_(False)
    est, other = (kind(m, seed=4, allow_unused=True) for m in (model, frozen))
    est.backward(lambda: loss_of(model))
    other.backward(lambda: loss_of(frozen))
    assert frozen.a.weight.grad is None
    numbers = {"a.weight": 0, "b.weight": 1, "spare.weight": 2}
    assert other.state_dict()["numbers"] == numbers
    assert est.state_dict()["numbers"] == numbers
    if kind is NSPSA:  # G / D = u / (e a), which depends on the tensor number alone
        ours = model.b.weight.grad / est.last.difference.float()
        theirs = frozen.b.weight.grad / other.last.difference.float()
        # (D d) (1 / (e e a)) / D: each of the two rounds 3 times
        torch.testing.assert_close(ours, theirs, rtol=6 * 2.0**-24, atol=0)


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
@pytest.mark.parametrize("noise", ["published", "rademacher"])
def test_save_and_resume_continue_bit_for_bit(kind, noise):
    def train(model, est, optimizer, steps):
        for _ in range(steps):
            est.backward(lambda: loss_of(model))
            optimizer.step()
            optimizer.zero_grad()

    def fresh():
        model = make()
        est = kind(model, probes=2, seed=9, noise=noise, allow_unused=True)
        return model, est, torch.optim.Adam(model.parameters(), lr=0.01)

    model, est, optimizer = fresh()
    train(model, est, optimizer, 3)
    parts = (model, est, optimizer)
    saved = [copy.deepcopy(part.state_dict()) for part in parts]
    train(model, est, optimizer, 4)
    again = fresh()
    for part, state in zip(again, saved, strict=True):
        part.load_state_dict(state)
    train(*again, 4)
    for p, q in zip(model.parameters(), again[0].parameters(), strict=True):
        assert torch.equal(p, q)
    assert torch.equal(est.last.losses, again[1].last.losses)
    assert est.state_dict() == again[1].state_dict()


def test_state_keeps_numbers_by_name():
    model = make()
    est = FOGZO(model, allow_unused=True)
    state = est.state_dict()
    state["numbers"] = {"a.weight": 2, "b.weight": 0, "spare.weight": 1}
    est.load_state_dict(state)
    assert est.state_dict()["numbers"] == state["numbers"]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"seed": 1}, "FOGZO.load_state_dict: seed is 1, expected 0 as this estimator was made"),
        ({"estimator": "NSPSA"}, "estimator is 'NSPSA', expected 'FOGZO'"),
        ({"gamma": 0.5}, "gamma is 0.5, expected 0.001"),
        ({"probes": 2}, "probes is 2, expected 1"),
        ({"noise": "rademacher"}, "noise is 'rademacher', expected 'published'"),
        ({"accumulate": 2}, "accumulate is 2, expected 1"),
        ({"numbers": {"a.weight": 0, "b.weight": 1}}, "numbers lacks 'spare.weight', expected the"),
        ({"calls": None}, "state has no 'calls', expected what state_dict() returned"),
    ],
)
def test_a_state_of_something_else_is_refused_by_name(change, text):
    est = FOGZO(make())
    state = {k: v for k, v in (est.state_dict() | change).items() if v is not None or k != "calls"}
    before = est.state_dict()
    with pytest.raises(ValueError, match=re.escape(text)):
        est.load_state_dict(state)
    assert est.state_dict() == before
