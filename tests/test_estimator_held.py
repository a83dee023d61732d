"""An estimator is of the parameters that its model held when it was made."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE

X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def make(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Linear(4, 5), nn.Identity(), nn.Linear(5, 5))
    return fogzo.quantize_(model)


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(6) % 3)


def another_layer(model: nn.Sequential) -> None:
    model[2] = fogzo.quantize_(nn.Linear(5, 5))


CHANGES: dict[str, tuple[str, Callable[[nn.Sequential], Any]]] = {
    "assign": (
        "0.weight",
        lambda m: m.load_state_dict(make(5).state_dict(), assign=True),
    ),
    "weight": (
        "2.weight",
        lambda m: setattr(m[2], "weight", nn.Parameter(torch.ones(5, 5))),
    ),
    "bias": ("0.bias", lambda m: setattr(m[0], "bias", nn.Parameter(torch.ones(5)))),
    "no bias": ("0.bias", lambda m: setattr(m[0], "bias", None)),
    "tied": ("0.bias", lambda m: setattr(m[0], "bias", m[2].bias)),
    "layer": ("2.weight", another_layer),
    "float layer": ("0.weight", lambda m: m.__setitem__(0, m[0].to_linear())),
    "new layer": ("3.weight", lambda m: m.append(fogzo.quantize_(nn.Linear(5, 5)))),
    "new parameter": (
        "1.gain",
        lambda m: m[1].register_parameter("gain", nn.Parameter(torch.ones(()))),
    ),
}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize(
    ("kind", "options"),
    [(STE, {}), (FOGZO, {}), (NSPSA, {"everything": True}), (FOGZO, {"everything": True})],
)
def test_other_parameters_are_refused_and_stay(kind, options, change, used):
    model = make()
    est = kind(model, **options)
    if used:
        est.backward(lambda: loss_of(model))
    name, apply = CHANGES[change]
    apply(model)
    loss_of(model).backward()
    held = [(n, p, p.clone(), p.grad) for n, p in model.named_parameters()]
    grads = [None if g is None else g.clone() for *_, g in held]
    calls = est.calls
    text = f"{kind.__name__}.backward: model does not hold {name!r} as when the estimator was made"
    for _ in range(2):
        with pytest.raises(RuntimeError, match=re.escape(text)):
            est.backward(lambda: loss_of(model))
    for (n, p, bits, grad), kept in zip(held, grads, strict=True):
        assert model.get_parameter(n) is p
        assert torch.equal(p, bits)
        assert p.grad is grad
        assert grad is None or torch.equal(grad, kept)
    assert est.calls == calls


def test_an_estimator_made_anew_goes_on():
    model, state = make(), make(5).state_dict()
    est = FOGZO(model)
    est.backward(lambda: loss_of(model))
    model.load_state_dict(state, assign=True)
    anew = FOGZO(model)
    anew.load_state_dict(est.state_dict())
    anew.backward(lambda: loss_of(model))
    assert anew.calls == 2


class Normed(nn.Sequential):
    """Ends in a part that may be replaced."""

    def __init__(self) -> None:
        super().__init__(*make(), nn.Identity())


def test_modules_without_parameters_may_come_and_go():
    """And the buffers of new ones are the step's own forward's alone."""
    model, plain = Normed(), Normed()
    est = FOGZO(model, probes=2)
    est.backward(lambda: loss_of(model))
    for net in (model, plain):
        net[3] = nn.BatchNorm1d(5, affine=False)
    model[0] = nn.Sequential(model[0])  # the same layer elsewhere
    est.backward(lambda: loss_of(model))
    loss_of(plain)
    assert torch.equal(model[3].running_mean, plain[3].running_mean)
    assert model[3].num_batches_tracked == 1
    assert est.last.flips.keys() == {"0.weight", "2.weight"}


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
def test_a_copy_looks_at_the_copied_model(used):
    model = make()
    model.__dict__["est"] = est = FOGZO(model)  # a copy of it is made before its model's is
    if used:
        est.backward(lambda: loss_of(model))
    twin = copy.deepcopy(model)
    twin.est.backward(lambda: loss_of(twin))
    twin[0].bias = nn.Parameter(torch.ones(5))
    with pytest.raises(RuntimeError, match=r"model does not hold '0\.bias' as when"):
        twin.est.backward(lambda: loss_of(twin))
    model.zero_grad()
    est.backward(lambda: loss_of(model))
