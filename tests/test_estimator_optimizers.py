"""Parameters that no optimizer holds: check_optimizer, and the warning in training."""

from __future__ import annotations

import copy
import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE
from fogzo.estimators._optimizers import _watchers

KINDS = [STE, NSPSA, FOGZO]
X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return fogzo.quantize_(nn.Sequential(nn.Linear(4, 5), nn.LayerNorm(5), nn.Linear(5, 3)))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(8) % 3)


def steps(est, model: nn.Module, *optimizers: torch.optim.Optimizer, n: int = 3) -> list[str]:
    """What was warned of in so many steps."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(n):
            est.backward(lambda: loss_of(model))
            for optimizer in optimizers:
                optimizer.step()
                optimizer.zero_grad()
    return [str(w.message) for w in caught if "no optimizer that stepped" in str(w.message)]


@pytest.mark.parametrize("kind", KINDS)
def test_missing_parameters_are_named(kind):
    model = make()
    est = kind(model)
    optimizer = torch.optim.SGD([model[0].weight, model[1].weight], lr=0.1)
    text = (
        f"{kind.__name__}.check_optimizer: optimizer lacks 0.bias, 1.bias, 2.weight, 2.bias, "
        "expected every parameter that requires grad: make it after quantize_, from "
        "model.parameters(), or freeze these with requires_grad_(False)"
    )
    with pytest.raises(ValueError, match=f"^{re.escape(text)}$"):
        est.check_optimizer(optimizer)


def test_several_optimizers_hold_the_model_together():
    model = make()
    est = FOGZO(model)
    halves = [torch.optim.SGD(model[0].parameters()), torch.optim.Adam(model[1:].parameters())]
    est.check_optimizer(*halves)
    with pytest.raises(ValueError, match=r"optimizers together lack 1.weight, 1.bias, 2.weight"):
        est.check_optimizer(halves[0], halves[0])
    est.check_optimizer(torch.optim.SGD(model.parameters()))


def test_a_frozen_parameter_may_be_missing_and_a_learned_one_is_found():
    model = make()
    est = FOGZO(model)
    optimizer = torch.optim.SGD(model.parameters())
    est.check_optimizer(optimizer)
    # as a scale that becomes a parameter after the optimizer was made
    model[0].register_parameter("learned", nn.Parameter(torch.ones(())))
    with pytest.raises(ValueError, match=r"optimizer lacks 0.learned, expected every"):
        est.check_optimizer(optimizer)
    model[0].learned.requires_grad_(False)
    est.check_optimizer(optimizer)


@pytest.mark.parametrize(("scale", "learned"), [("lsq", "scale"), ("stretched", "alpha")])
def test_scales_learned_after_the_optimizer_was_made_are_named(scale, learned):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 3))
    early = torch.optim.SGD(model.parameters(), lr=0.1)
    grid = "mid-rise" if scale == "stretched" else "mid-tread"
    fogzo.quantize_(model, fogzo.QuantConfig(grid=grid, bits=2, scale=scale))
    est = FOGZO(model)
    with pytest.raises(ValueError, match=rf"optimizer lacks 0.{learned}, expected every"):
        est.check_optimizer(early)
    (text,) = steps(est, model, early)
    assert f"no optimizer that stepped holds 0.{learned}: make it after quantize_" in text
    late = torch.optim.SGD(model.parameters(), lr=0.1)
    est.check_optimizer(late)
    assert steps(FOGZO(model), model, late) == []


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ((), ValueError, "optimizers is empty, expected the optimizers that train the model"),
        ((None,), TypeError, "optimizers is a NoneType, expected torch.optim.Optimizer"),
    ],
)
def test_what_is_no_optimizer_is_refused(given, error, text):
    with pytest.raises(error, match=re.escape(f"STE.check_optimizer: {text}")):
        STE(make()).check_optimizer(*given)


def test_many_names_are_cut():
    model = fogzo.quantize_(nn.Sequential(*(nn.Linear(2, 2) for _ in range(6))))
    with pytest.raises(ValueError, match=r"3.bias, 4.weight and 3 more, expected every"):
        STE(model).check_optimizer(torch.optim.SGD([model[0].weight]))


@pytest.mark.parametrize("kind", KINDS)
def test_training_warns_once_of_quantized_layers_that_no_optimizer_steps(kind):
    model = make()
    est = kind(model)
    optimizer = torch.optim.SGD([*model[0].parameters(), *model[1].parameters()], lr=0.1)
    (text,) = steps(est, model, optimizer)
    assert text.startswith(
        f"{kind.__name__}: no optimizer that stepped holds 2.weight, 2.bias: make it after"
    )
    assert "est.check_optimizer(optimizer)" in text
    assert est._optimizers not in _watchers
    assert steps(est, model, optimizer) == []


def test_training_is_silent_where_all_is_held_frozen_or_elsewhere():
    model = make()
    both = [torch.optim.SGD(model[0].parameters()), torch.optim.SGD(model[1:].parameters())]
    assert steps(FOGZO(model), model, *both) == []
    frozen = make()
    frozen[2].requires_grad_(False)
    optimizer = torch.optim.SGD([p for p in frozen.parameters() if p.requires_grad])
    assert steps(FOGZO(frozen), frozen, optimizer) == []
    elsewhere = make()
    rival = torch.optim.SGD([torch.zeros(2, requires_grad=True)])
    est = FOGZO(elsewhere)
    assert steps(est, elsewhere, rival) == []
    assert est._optimizers in _watchers  # and goes on watching


def test_accumulation_waits_for_the_step():
    model = make()
    est, optimizer = FOGZO(model, accumulate=2), torch.optim.SGD([model[0].weight], lr=0.1)
    assert steps(est, model, n=2) == []
    assert len(steps(est, model, optimizer, n=2)) == 1


def test_a_copy_watches_its_own_model():
    model = make()
    est = FOGZO(model)
    twin, both = copy.deepcopy((model, est))
    original = torch.optim.SGD(model.parameters())
    loss_of(model).backward()
    original.step()  # says nothing of the copy
    (text,) = steps(both, twin, torch.optim.SGD([twin[0].weight]))
    assert "holds 0.bias, 2.weight, 2.bias" in text


def test_a_forgotten_estimator_is_not_kept():
    before = len(_watchers)
    FOGZO(make())
    assert len(_watchers) <= before + 1
    import gc

    gc.collect()
    assert len(_watchers) <= before
