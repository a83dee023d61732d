"""The warning of losses that cannot resolve the probes: when, once, and what it advises."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA
from fogzo.estimators import Last
from fogzo.estimators._resolution import ENOUGH, STEPS, ResolutionWatch, advice

X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
EPS = 2.0**-23


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return fogzo.quantize_(nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 3)))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(8) % 3)


def step(*resolutions: float, dtype: torch.dtype = torch.float32) -> Last:
    """Figures of a step whose probes have these resolutions; -1: both losses are 0."""
    last = Last(torch.ones((), dtype=dtype))
    pairs = [
        (0.0, 0.0) if r < 0 else (2.0, 2.0 - 2.0 * r * torch.finfo(dtype).eps) for r in resolutions
    ]
    last._losses = [torch.tensor(x, dtype=torch.float64) for pair in pairs for x in pair]
    return last


def said(watch: ResolutionWatch, steps: list[Last]) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for last in steps:
            watch.see(last)
        watch.warn()
    return [str(w.message) for w in caught]


@pytest.fixture(params=[True, False], ids=["host", "device"])
def watch(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> ResolutionWatch:
    """On the host, and counted as on a device whose values nobody may read."""
    monkeypatch.setattr("fogzo.estimators._resolution.readable", lambda _: request.param)
    return ResolutionWatch("FOGZO")


LOW, HIGH = step(3.0, 9.5), step(3.0, 10.5)


def test_it_warns_once_after_so_many_steps_in_a_row(watch):
    assert said(watch, [LOW] * (STEPS - 1)) == []
    (text,) = said(watch, [LOW])
    assert text == (
        "FOGZO: in 100 steps in a row no probe's two losses differed by more than 9.5 roundings "
        "of float32, expected 10 or more: float32 loss hardly resolves the probe: a larger gamma, "
        "or a float64 loss"
    )
    assert said(watch, [LOW] * 3 * STEPS) == []


def test_one_probe_that_is_resolved_ends_the_row(watch):
    assert said(watch, [LOW] * (STEPS - 1) + [HIGH] + [LOW] * (STEPS - 1)) == []
    assert len(said(watch, [LOW])) == 1


def test_the_figure_is_of_this_row_alone(watch):
    assert said(watch, [step(9.75), HIGH] + [step(2.0)] * (STEPS - 1)) == []
    (text,) = said(watch, [step(4.5)])
    assert "by more than 4.5 roundings" in text


def test_plain_steps_neither_count_nor_end_it(watch):
    plain = Last(torch.ones(()))
    assert said(watch, [plain] * 300 + [LOW, plain] * (STEPS - 1)) == []
    assert len(said(watch, [LOW])) == 1


@pytest.mark.parametrize("other", [-1.0, float("nan"), float("inf")])
def test_losses_of_zero_or_not_finite_are_not_low(watch, other):
    assert said(watch, [LOW] * (STEPS - 1) + [step(other)] + [LOW] * (STEPS - 1)) == []


def test_a_later_row_of_resolved_steps_does_not_unsay_it():
    """On a device the count is read late: what was found stays found."""
    watch = ResolutionWatch("FOGZO")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fogzo.estimators._resolution.readable", lambda _: False)
        for last in [LOW] * STEPS + [HIGH] * 5:
            watch.see(last)
    with pytest.warns(UserWarning, match="more than 9.5 roundings"):
        watch.warn()


def test_no_value_is_read_on_a_device(monkeypatch):
    """What would wait for a device raises here."""
    monkeypatch.setattr("fogzo.estimators._resolution.readable", lambda _: False)
    watch = ResolutionWatch("FOGZO")
    watch.see(LOW)  # makes the state

    def waits(*_: object) -> None:
        raise AssertionError("waits for the device")

    with monkeypatch.context() as patch:
        for name in ("item", "tolist", "__bool__", "__float__", "__int__", "cpu", "numpy"):
            patch.setattr(Tensor, name, waits)
        for _ in range(STEPS):
            watch.see(LOW)
    with pytest.warns(UserWarning, match="more than 9.5 roundings"):
        LOW.was_read()


def test_the_advice_goes_by_the_dtype():
    for dtype in (torch.bfloat16, torch.float16):
        name = str(dtype).removeprefix("torch.")
        for resolution in (0.0, 2.0):
            assert advice(dtype, resolution) == (
                f"{name} loss cannot resolve the probe: compute the loss in float32"
            )
    assert advice(torch.float32, 0.0).startswith("the probes change nothing that the loss sees")
    assert ENOUGH == 10


@pytest.mark.parametrize("kind", [FOGZO, NSPSA])
def test_training_with_a_bfloat16_loss_warns_once(kind):
    model = make()
    est = kind(model)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(STEPS + 20):
            est.backward(
                lambda: (
                    loss_of(model).bfloat16() if kind is FOGZO else 1000 + loss_of(model).bfloat16()
                )
            )
    (text,) = [str(w.message) for w in caught]
    assert text.startswith(f"{kind.__name__}: in 100 steps in a row no probe's two losses differed")
    assert text.endswith("bfloat16 loss cannot resolve the probe: compute the loss in float32")


def test_training_with_a_float32_loss_is_silent():
    model = make()
    est = FOGZO(model, gamma=0.01)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for _ in range(STEPS + 20):
            est.backward(lambda: loss_of(model))


def test_a_device_is_read_where_figures_are_asked_for(monkeypatch):
    model = make()
    monkeypatch.setattr("fogzo.estimators._resolution.readable", lambda _: False)
    for ask in ("raise_if_failed", "state_dict", "flips"):
        est = FOGZO(model)
        for _ in range(STEPS):
            est.backward(lambda: loss_of(model).bfloat16())
        with pytest.warns(UserWarning, match="bfloat16 loss cannot resolve the probe"):
            est.last.flips if ask == "flips" else getattr(est, ask)()
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert copy.deepcopy((model, est))[1].last.flips == est.last.flips
