"""Every warning names the line of the user's program that led to it."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable

import pytest
import torch
from torch import nn

import fogzo
from fogzo import FOGZO, NSPSA


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


def plain(kind: type[FOGZO | NSPSA] = FOGZO, steps: int = 1) -> None:
    model, _ = made()
    model[0].weight.requires_grad_(False)
    est = kind(model)
    for _ in range(steps):
        est.backward(lambda: model(torch.ones(2, 100)).square().mean())


def without_gradients() -> None:
    model, est = made()
    model[0].weight.register_post_accumulate_grad_hook(lambda p: setattr(p, "grad", None))
    est.backward(lambda: model(torch.ones(2, 100)).square().mean())


@pytest.mark.parametrize(
    "run", [regime, fallbacks, turns, resolution, optimizer, plain, without_gradients]
)
def test_a_warning_names_the_users_line(run: Callable[[], None]) -> None:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        run()
    ours = [w for w in seen if str(w.message).startswith("FOGZO: ")]
    assert ours
    assert {w.filename for w in ours} == {__file__}


@pytest.mark.parametrize(
    ("kind", "why"), [(FOGZO, "has a gradient (are all"), (NSPSA, "was read by the forward and")]
)
def test_steps_without_probes_are_told_once(kind: type[FOGZO | NSPSA], why: str) -> None:
    text = f"{kind.__name__}: a step without probes: no weight that they perturb {why}"
    with pytest.warns(UserWarning, match=re.escape(text)) as seen:
        plain(kind, steps=3)
    assert len(seen) == 1


def test_quantization_that_is_switched_off_is_no_step_to_tell_of() -> None:
    model, est = made()
    fogzo.disable_quantization(model)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        est.backward(lambda: model(torch.ones(2, 100)).square().mean())
