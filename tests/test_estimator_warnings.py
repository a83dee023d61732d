"""Every warning names the line of the user's program that led to it."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import fogzo
from fogzo import FOGZO


def made(**options: object) -> tuple[nn.Module, FOGZO]:
    model = fogzo.quantize_(nn.Sequential(nn.Linear(100, 100)))
    return model, FOGZO(model, **options)  # type: ignore[arg-type]


def regime() -> None:
    made(gamma=0.1)


def fallbacks() -> None:
    model, est = made()
    x, calls = torch.ones(2, 100), iter((1.0, float("nan"), 1.0))
    est.backward(lambda: model(x).square().mean() * next(calls))


def turns() -> None:
    model, est = made(probes_mode="batched")
    x = torch.ones(2, 100)

    def closure() -> torch.Tensor:
        loss = model(x).square().mean()
        return loss if loss > -1 else -loss

    est.backward(closure)


def resolution() -> None:
    model, est = made()
    x = torch.ones(2, 100)
    for _ in range(100):
        est.backward(lambda: (model(x).square().mean() * 0 + 1).bfloat16())


def optimizer() -> None:
    model = fogzo.quantize_(nn.Sequential(nn.Linear(4, 4)), fogzo.QuantConfig(scale="lsq"))
    est = FOGZO(model, seed=1)
    step = torch.optim.SGD([model[0].weight, model[0].bias], lr=0.1)
    for _ in range(2):
        est.backward(lambda: model(torch.ones(2, 4)).square().mean())
        step.step()


@pytest.mark.parametrize("run", [regime, fallbacks, turns, resolution, optimizer])
def test_a_warning_names_the_users_line(run: Callable[[], None]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run()
    ours = [w for w in seen if str(w.message).startswith("FOGZO: ")]
    assert ours
    assert {w.filename for w in ours} == {__file__}
