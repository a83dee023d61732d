"""fogzo.diagnose: its figures are the estimators', its verdicts fit, and it leaves no trace."""

from __future__ import annotations

import math
import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, diagnose
from fogzo.monitoring import Diagnosis

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
Y = torch.arange(64) % 4


def make(dropout: float = 0.2) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(16, 24), nn.BatchNorm1d(24), nn.Dropout(dropout), nn.Tanh(), nn.Linear(24, 4)
    )
    return fogzo.quantize_(model, fogzo.QuantConfig(bits=2))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def quiet(model: nn.Module, closure, **options) -> Diagnosis:
    return diagnose(model, closure, verbose=False, **options)


def verdict(found: Diagnosis, name: str) -> tuple[bool, str]:
    (finding,) = [f for f in found.findings if f.name == name]
    return finding.good, finding.verdict


def test_a_sound_model_is_well_and_the_figures_are_the_estimators(capsys):
    model = make()
    torch.manual_seed(4)
    found = diagnose(model, lambda: loss_of(model), gamma=0.01, probes=3, seed=9)
    assert found.good
    assert found.repeatable
    assert found.differs_at is None
    torch.manual_seed(4)
    est = FOGZO(model, probes=3, gamma=0.01, seed=9)
    est.backward(lambda: loss_of(model))
    torch.manual_seed(4)
    along = FOGZO(model, gamma=0.0, seed=9)
    along.backward(lambda: loss_of(model))
    d = 16 * 24 + 24 * 4
    assert (found.loss, found.dtype) == (est.last.loss.item(), "float32")
    assert (found.weights, found.gamma) == (d, 0.01)
    assert (found.guide, found.noise) == (math.sqrt(0.99), math.sqrt(0.01 * d))
    assert found.flips == est.last.flips
    assert found.resolution == est.last.resolution.max().item()
    assert found.measured == along.last.difference.item()
    assert found.predicted == along.last.predicted.item()
    assert found.ratio == along.last.ratio.item()
    text = capsys.readouterr().out
    assert text == f"{found}\n"
    assert text.startswith(f"loss {found.loss:.6g} (float32), 480 quantized weights, gamma 0.01\n")
    for name in (
        "repeatable",
        "finite",
        "guide / noise",
        "flips",
        "slope at gamma 0",
        "resolution",
    ):
        assert f"ok     {name}" in text
    assert "CHECK" not in text


def test_a_batch_is_handed_to_the_closure():
    model = make(dropout=0.0)
    closure = lambda batch: F.cross_entropy(model(batch["x"]), batch["y"])  # noqa: E731
    found = quiet(model, closure, batch={"x": X, "y": Y})
    assert found == quiet(model, lambda: loss_of(model))


class Trace:
    """Bits of all that a diagnosis must leave alone."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = [(t, t.detach().clone(), t._version) for t in model.parameters()]
        self.buffers = [(b, b.clone()) for b in model.buffers()]
        self.grads = [(p, p.grad, p.grad.clone()) for p in model.parameters() if p.grad is not None]
        self.without = [p for p in model.parameters() if p.grad is None]
        self.training = [m.training for m in model.modules()]
        self.random = self.states()

    @staticmethod
    def states() -> list[object]:
        return [
            torch.get_rng_state().tolist(),
            random.getstate(),
            np.random.get_state()[1].tolist(),  # noqa: NPY002
        ]

    def assert_same(self) -> None:
        for t, bits, version in self.tensors:
            assert torch.equal(t, bits)
            assert t._version == version
        for b, (old, bits) in zip(self.model.buffers(), self.buffers, strict=True):
            assert b is old
            assert torch.equal(b, bits)
        for p, grad, bits in self.grads:
            assert p.grad is grad
            assert torch.equal(grad, bits)
        assert all(p.grad is None for p in self.without)
        assert self.training == [m.training for m in self.model.modules()]
        assert all(not m._forward_hooks for m in self.model.modules())
        assert all(not m._forward_pre_hooks for m in self.model.modules())
        assert all(getattr(m, "_probe_weight", None) is None for m in self.model.modules())
        assert self.states() == self.random


def prepared() -> tuple[nn.Sequential, Trace]:
    model = make()
    loss_of(model).backward()
    model[0].bias.grad = None
    return model, Trace(model)


def drawing(model: nn.Module) -> Tensor:
    """A loss that draws from all global random states."""
    drawn = random.random() + float(np.random.rand()) + torch.rand(())  # noqa: NPY002
    return loss_of(model) + 0 * drawn


def test_nothing_is_left_behind():
    model, trace = prepared()
    assert quiet(model, lambda: drawing(model)).repeatable
    trace.assert_same()


@pytest.mark.parametrize("call", [1, 2, 3, 4, 12, 15])
def test_nothing_is_left_behind_where_the_closure_raises(call):
    """2 forwards for the repeat, 1 + 2 * 4 of the step, 1 + 2 of the one with gamma 0."""
    model, trace = prepared()
    calls = []

    def closure() -> Tensor:
        loss = drawing(model)
        calls.append(1)
        if len(calls) == call:
            raise ZeroDivisionError
        return loss

    if call > 14:
        quiet(model, closure)
        assert len(calls) == 14
    else:
        with pytest.raises(ZeroDivisionError):
            quiet(model, closure)
    trace.assert_same()


def test_nothing_is_left_behind_where_the_closure_is_not_repeatable():
    model, trace = prepared()
    count = iter(range(99))
    found = quiet(model, lambda: drawing(model) + next(count))
    assert not found.repeatable
    trace.assert_same()


@pytest.mark.parametrize("bad", ["backward", "step", "nan", "text"])
def test_a_closure_that_is_refused_leaves_nothing_behind(bad):
    model, trace = prepared()
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)

    def closure() -> Tensor:
        loss = drawing(model)
        if bad == "backward":
            loss.backward(retain_graph=True)
        elif bad == "step":
            optimizer.step()
        elif bad == "nan":
            loss = loss * math.nan
        return "loss" if bad == "text" else loss

    with pytest.raises((RuntimeError, FloatingPointError, TypeError), match="closure (called|ret)"):
        quiet(model, closure)
    trace.assert_same()


def test_a_repeat_that_gives_no_loss_is_refused():
    model, trace = prepared()
    losses = iter([lambda: loss_of(model), lambda: 3.0])
    with pytest.raises(TypeError, match="returned a float when it was repeated, expected a loss"):
        quiet(model, lambda: next(losses)())
    trace.assert_same()


@pytest.mark.parametrize(
    ("model", "closure", "text"),
    [
        (3, None, "diagnose: model is a int, expected a torch.nn.Module"),
        (nn.Linear(2, 2), None, "FOGZO: model has no quantized weight"),
        (make(), 3, "FOGZO.backward: closure is a int, expected a closure of the forward pass"),
        (fogzo.disable_quantization(make()), None, "model has disabled quantized layers alone"),
    ],
)
def test_arguments_of_another_kind_are_refused(model, closure, text):
    with pytest.raises((TypeError, ValueError), match=text):
        diagnose(model, closure)


def test_a_closure_that_is_not_repeatable_is_named():
    model, generator = make(), torch.Generator().manual_seed(3)

    def closure() -> Tensor:
        rows = torch.randperm(64, generator=generator)[:32]
        return F.cross_entropy(model(X[rows]), Y[rows])

    found = quiet(model, closure)
    assert found.differs_at == "the input of the model"
    good, text = verdict(found, "repeatable")
    assert not good
    assert text.startswith("first differs the input of the model; expected the same loss bit for")
    for name in ("slope at gamma 0", "resolution"):
        good, text = verdict(found, name)
        assert not good
        assert text.startswith("means nothing")
    assert not found.good
    assert "CHECK  repeatable" in str(found)


def test_a_bfloat16_loss_cannot_resolve_the_probe():
    model = make()
    found = quiet(model, lambda: loss_of(model).bfloat16())
    assert found.dtype == "bfloat16"
    assert found.resolution < 10
    assert verdict(found, "resolution") == (
        False,
        "bfloat16 loss cannot resolve the probe: compute the loss in float32",
    )
    assert verdict(quiet(model, lambda: loss_of(model)), "resolution")[0]


def test_noise_that_drowns_the_guide_is_said_with_figures():
    model = make()
    found = quiet(model, lambda: loss_of(model), gamma=0.5)
    assert found.noise > 10 * found.guide
    assert verdict(found, "guide / noise") == (
        False,
        "the noise drowns the guide (n-SPSA): gamma 'auto' would be 0.001",
    )


def test_no_guide_is_said():
    model = make()
    found = quiet(model, lambda: loss_of(model) * 0 + 1)
    assert found.guide == 0
    good, text = verdict(found, "guide / noise")
    assert not good
    assert text.startswith("the straight-through gradient is 0 or not finite")
    assert verdict(found, "slope at gamma 0") == (
        False, "there is no guide to measure along"
    )  # fmt: skip


def at_the_middle_of_their_basins(model: nn.Sequential) -> nn.Sequential:
    with torch.no_grad():
        for layer in (model[0], model[4]):
            layer.weight.copy_(layer.quantized_weight())
    return model


def test_no_flips_is_said():
    model = at_the_middle_of_their_basins(make())
    found = quiet(model, lambda: loss_of(model))
    assert found.flips == {"0.weight": 0, "4.weight": 0}
    assert verdict(found, "flips") == (
        False, "no code to measure by: a larger gamma, or more probes"
    )  # fmt: skip
    assert verdict(found, "slope at gamma 0") == (
        True, "no code changes along the guide alone: nothing was measured"
    )  # fmt: skip
    assert verdict(found, "resolution")[1].startswith("the probes change nothing that the loss")


def test_a_layer_without_flips_is_named():
    model = make()
    with torch.no_grad():
        model[4].weight.copy_(model[4].quantized_weight())
    found = quiet(model, lambda: loss_of(model))
    assert found.flips["0.weight"] > 1
    assert verdict(found, "flips") == (True, "no code changes in 4.weight")


class Turned(torch.autograd.Function):
    """x, whose gradient is ``by`` times as large as it should be."""

    @staticmethod
    def forward(ctx, x, by):
        ctx.by = by
        return x.clone()

    @staticmethod
    def backward(ctx, grad):
        return ctx.by * grad, None


@pytest.mark.parametrize(
    ("by", "good", "text"),
    [
        (-1.0, False, "the straight-through gradient points uphill here"),
        (100.0, True, "the loss changes far less than the straight-through gradient promises"),
        (0.01, True, "the loss changes far more than the straight-through gradient promises"),
        (1.0, True, "the straight-through gradient holds along itself"),
    ],
)
def test_the_slope_is_judged_by_its_ratio(by, good, text):
    """A guide of the wrong sign or length; its direction stays, so D does."""
    model = make(dropout=0.0)
    found = quiet(model, lambda: Turned.apply(loss_of(model), by))
    true = quiet(model, lambda: loss_of(model))
    assert 0.5 < true.ratio < 2
    assert found.ratio == pytest.approx(true.ratio / abs(by) * math.copysign(1, by), rel=1e-3)
    assert verdict(found, "slope at gamma 0") == (good, text)


def test_a_probe_that_is_not_finite_is_said():
    model, count = make(), iter(range(99))
    found = quiet(model, lambda: loss_of(model) * (math.inf if next(count) == 4 else 1))
    good, text = verdict(found, "finite")
    assert not good
    assert text.startswith("a loss overflows close by")
    assert [f.measured for f in found.findings if f.name == "finite"] == [
        "3 of 4 probes have finite losses"
    ]


def test_whether_the_probes_can_be_batched_is_said_where_it_is_asked():
    model = make()
    plain = quiet(model, lambda: loss_of(model), gamma=0.01)
    found = quiet(model, lambda: loss_of(model), gamma=0.01, probes_mode="batched")
    assert found.good
    assert found.why_sequential is None
    assert verdict(found, "batched") == (True, "it can be mapped")
    assert [f.name for f in plain.findings] == [f.name for f in found.findings][:-1]
    assert plain.flips == found.flips
    assert plain.measured == pytest.approx(found.measured, rel=1e-4)

    def reads() -> Tensor:
        loss = loss_of(model)
        return loss * (1 + 0 * loss.detach().item())

    found = quiet(model, reads, gamma=0.01, probes_mode="batched")
    assert "item()" in found.why_sequential
    good, text = verdict(found, "batched")
    assert not good
    assert text == f"right, but the closure cannot be mapped: {found.why_sequential}"
    assert all(f.good for f in found.findings if f.name != "batched")
    assert quiet(model, reads, gamma=0.01).good  # not asked
    with pytest.raises(ValueError, match="probes_mode is 'vmap', expected one of sequential"):
        quiet(model, reads, probes_mode="vmap")
