"""What a closure may not do, and that a call which fails leaves everything as it was."""

from __future__ import annotations

import re
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE
from fogzo.estimators.record import Last

KINDS = [STE, NSPSA, FOGZO]
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def make(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    return fogzo.quantize_(
        nn.Sequential(nn.Linear(4, 5, bias=bias), nn.Dropout(0.5), nn.Linear(5, 3, bias=bias))
    )


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(6) % 3)


class Everything:
    """Bits of parameters, gradients (and which tensors they are), buffers and random state."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.parameters = [(p, p.clone(), p._version) for p in model.parameters()]
        self.grads = [
            (p, p.grad, None if p.grad is None else p.grad.clone()) for p in model.parameters()
        ]
        self.buffers = [b.clone() for b in model.buffers()]
        self.random = torch.get_rng_state()

    def assert_unchanged(self) -> None:
        for p, bits, version in self.parameters:
            assert torch.equal(p, bits)
            assert p._version == version
        for p, grad, bits in self.grads:
            assert p.grad is grad
            assert grad is None or torch.equal(grad, bits)
        for b, bits in zip(self.model.buffers(), self.buffers, strict=True):
            assert torch.equal(b, bits)
        for layer in self.model:
            assert getattr(layer, "_probe_weight", None) is None


def backward_inside(model: nn.Module) -> Tensor:
    loss = loss_of(model)
    loss.backward()
    return loss


def zero_grad_inside(model: nn.Module, to_none: bool) -> Tensor:
    model.zero_grad(set_to_none=to_none)
    return loss_of(model)


FORWARD_ONLY = (
    "expected a closure of the forward pass and the loss alone; the estimator does the rest"
)
BAD = {
    "backward": (backward_inside, RuntimeError, f"closure called backward(), {FORWARD_ONLY}"),
    "zero_grad": (
        lambda m: zero_grad_inside(m, True),
        RuntimeError,
        f"closure called zero_grad(), {FORWARD_ONLY}",
    ),
    "zero_grad to zeros": (
        lambda m: zero_grad_inside(m, False),
        RuntimeError,
        f"closure called zero_grad(), {FORWARD_ONLY}",
    ),
    "float": (
        lambda m: loss_of(m).item(),
        TypeError,
        "closure returned a float, expected a loss tensor of one element",
    ),
    "vector": (
        lambda m: m(X)[0],
        ValueError,
        "closure returned shape (3,), expected a loss tensor of one element",
    ),
    "nan": (
        lambda m: loss_of(m) * float("nan"),
        FloatingPointError,
        "closure returned nan, expected a finite loss",
    ),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("with_grads", [False, True], ids=["no grads", "grads"])
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
def test_a_bad_closure_is_refused_and_nothing_changes(kind, bad, with_grads, bias):
    model = make(bias)
    if with_grads:
        loss_of(model).backward()
    closure, error, text = BAD[bad]
    est, before = kind(model), Everything(model)
    with pytest.raises(error, match=re.escape(f"{kind.__name__}.backward: {text}")):
        est.backward(lambda: closure(model))
    before.assert_unchanged()
    assert est.calls == 0
    assert est.last is None
    est.backward(lambda: loss_of(model))  # and goes on


def test_a_loss_without_gradient_is_refused():
    model = make()
    with pytest.raises(ValueError, match="returned a loss without gradient, expected one that"):
        FOGZO(model).backward(lambda: loss_of(model).detach())


@pytest.mark.parametrize("kind", KINDS)
def test_a_closure_that_is_none_is_refused(kind):
    with pytest.raises(TypeError, match=r"\.backward: closure is a Tensor, expected a closure"):
        kind(make()).backward(torch.zeros(()))


class Raises(Exception):
    pass


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
@pytest.mark.parametrize("forward", range(5))
@pytest.mark.parametrize("everything", [False, True])
def test_a_closure_that_raises_in_any_forward_changes_nothing(kind, forward, everything):
    model = make()
    model.append(nn.BatchNorm1d(3))
    loss_of(model).backward()
    est = kind(model, probes=2, everything=everything)
    est.backward(lambda: loss_of(model))
    before, count = Everything(model), iter(range(9))

    def closure() -> Tensor:
        loss = loss_of(model)
        if next(count) == forward:
            raise Raises
        return loss

    with pytest.raises(Raises):
        est.backward(closure)
    before.assert_unchanged()
    assert torch.equal(torch.get_rng_state(), before.random)
    assert est.calls == 1


def test_gradients_taken_inside_the_closure_are_allowed():
    model = make()

    def closure() -> Tensor:
        with torch.enable_grad():  # also in the probes
            x = X.clone().requires_grad_()
            loss = F.cross_entropy(model(x), torch.arange(6) % 3)
            (slope,) = torch.autograd.grad(loss, x, create_graph=True)
        return loss + slope.square().sum()

    assert FOGZO(model).backward(closure).isfinite()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_probe_that_is_not_finite_falls_back_to_the_guide(value):
    model = make()

    def closure() -> Tensor:
        loss = loss_of(model)
        return loss if torch.is_grad_enabled() else loss * value

    torch.manual_seed(3)
    plain = torch.autograd.grad(loss_of(model), list(model.parameters()))
    est = FOGZO(model, probes=2)
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match="not finite in 1 steps so far; there G is the straight"):
        est.backward(closure)
    for p, g in zip(model.parameters(), plain, strict=True):
        assert torch.equal(p.grad, g)
    assert est.last.fallbacks == 1
    est.backward(closure)  # warns once
    assert est.last.fallbacks == 2
    est.backward(lambda: loss_of(model))
    assert est.last.fallbacks == 2


def test_without_a_guide_the_fallback_is_no_step():
    model = make(bias=False)
    est, count = NSPSA(model), iter(range(9))
    with pytest.warns(UserWarning, match="not finite in 1 steps so far; there G is zero"):
        est.backward(lambda: loss_of(model) * (1 if next(count) == 0 else float("inf")))
    assert all(torch.equal(p.grad, torch.zeros_like(p)) for p in model.parameters())


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_on_nonfinite_raise_leaves_the_gradients_alone(kind):
    model = make()
    loss_of(model).backward()
    before = Everything(model)
    est, count = kind(model, on_nonfinite="raise"), iter(range(9))
    with pytest.raises(
        FloatingPointError, match=r"returned \[\[.*nan\]\] for the probes, expected"
    ):
        est.backward(lambda: loss_of(model) * (float("nan") if next(count) == 2 else 1))
    before.assert_unchanged()


def test_raise_if_failed_is_silent_after_a_good_step():
    model = make()
    est = FOGZO(model)
    est.raise_if_failed()
    est.backward(lambda: loss_of(model))
    est.raise_if_failed()


def with_a_gradient_of(model: nn.Module, value: float) -> Tensor:
    """A finite loss whose gradient by one output is ``value``."""
    y = model(X)
    if y.requires_grad:  # the probes record nothing
        y.register_hook(lambda grad: grad * torch.tensor([value, 1.0, 1.0]))
    return F.cross_entropy(y, torch.arange(6) % 3)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_norm_that_is_not_finite_stays_noted_until_it_is_asked_for(value):
    model = make()
    est = FOGZO(model)
    est.backward(lambda: with_a_gradient_of(model, value))
    assert not torch.isfinite(model[0].weight.grad).all()
    est.backward(lambda: loss_of(model))  # a good step afterwards hides nothing
    text = "raise_if_failed found the norm of the gradient not finite in a call since"
    with pytest.raises(FloatingPointError, match=f"^FOGZO: {text}"):
        est.raise_if_failed()
    est.raise_if_failed()


def test_with_a_scaler_an_overflow_is_no_failure():
    model = make()
    est = FOGZO(model)
    scaler = torch.amp.GradScaler("cpu")
    est.backward(lambda: with_a_gradient_of(model, float("inf")), scaler=scaler)
    est.raise_if_failed()


@pytest.mark.parametrize("kind", KINDS)
def test_a_loss_that_no_host_reads_is_noted(kind, monkeypatch):
    """As on a device, whose values backward() does not wait for."""
    model = make()
    est = kind(model)
    monkeypatch.setattr("fogzo.estimators._base.readable", lambda _: False)
    est.backward(lambda: loss_of(model))
    est.raise_if_failed()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the probes that are not finite either
        est.backward(lambda: loss_of(model) * float("nan"))
    est.backward(lambda: loss_of(model))
    with pytest.raises(FloatingPointError, match="found the loss"):
        est.raise_if_failed()
    est.raise_if_failed()


@pytest.mark.gpu
@pytest.mark.parametrize("kind", KINDS)
def test_a_failure_on_a_device_is_noted_without_waiting_for_it(kind):
    model = make().cuda()
    est = kind(model)
    loss = torch.tensor([float("nan"), 1.0], device="cuda")
    last = Last(loss[0])
    last.norm = loss[0]
    torch.cuda.set_sync_debug_mode("error")
    try:
        est._note_failures(last, None)
        est._note_failures(Last(loss[1]), None)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    text = "found the loss and the norm of the gradient not finite"
    with pytest.raises(FloatingPointError, match=text):
        est.raise_if_failed()
    est.raise_if_failed()
    x, y = X.cuda(), (torch.arange(6) % 3).cuda()
    est.backward(lambda: F.cross_entropy(model(x), y) * float("nan"))
    with pytest.raises(FloatingPointError, match="the loss"):
        est.raise_if_failed()


OPTIONS = [
    (FOGZO, {"probes": 0}, ValueError, "FOGZO: probes is 0, expected an int >= 1"),
    (FOGZO, {"probes": 10**14}, ValueError, "an int >= 1 and at most 1048576"),
    (NSPSA, {"probes": 1.5}, ValueError, "NSPSA: probes is 1.5, expected an int >= 1"),
    (FOGZO, {"gamma": -1e-9}, ValueError, 'gamma is -1e-09, expected "auto" or a float in [0, 1]'),
    (
        FOGZO,
        {"gamma": 1.5},
        ValueError,
        'FOGZO: gamma is 1.5, expected "auto" or a float in [0, 1]',
    ),
    (FOGZO, {"gamma": float("nan")}, ValueError, "gamma is nan, expected"),
    (FOGZO, {"gamma": "big"}, TypeError, "gamma is 'big', expected"),
    (FOGZO, {"ramp_steps": 0}, ValueError, "ramp_steps is 0, expected an int >= 1"),
    (FOGZO, {"start": -1}, ValueError, "start is -1, expected an int >= 0"),
    (FOGZO, {"accumulate": 0}, ValueError, "accumulate is 0, expected an int >= 1"),
    (STE, {"accumulate": 0}, ValueError, "STE: accumulate is 0, expected an int >= 1"),
    (FOGZO, {"seed": 2**64}, ValueError, f"seed is {2**64}, expected an int of 64 bits"),
    (FOGZO, {"seed": "0"}, ValueError, "seed is '0', expected an int of 64 bits"),
    (NSPSA, {"noise": "normal"}, ValueError, "noise is 'normal', expected one of published"),
    (FOGZO, {"on_nonfinite": "skip"}, ValueError, "on_nonfinite is 'skip', expected one of ste"),
]


@pytest.mark.parametrize(("kind", "options", "error", "text"), OPTIONS)
def test_options_out_of_range_are_refused(kind, options, error, text):
    with pytest.raises(error, match=re.escape(text)):
        kind(make(), **options)


def test_a_model_without_quantized_weights_is_refused():
    expected = "has no quantized weight, expected fogzo.quantize_(model, config) first"
    with pytest.raises(ValueError, match=re.escape(expected)):
        FOGZO(nn.Linear(2, 2))
    STE(nn.Linear(2, 2))
    with pytest.raises(TypeError, match=r"STE: model is a Tensor, expected a torch\.nn\.Module"):
        STE(torch.zeros(2))


def test_a_half_precision_weight_is_refused_by_name():
    expected = "0.weight has dtype float16, expected float32: call model.float() and use autocast"
    with pytest.raises(TypeError, match=re.escape(expected)):
        FOGZO(make().half())
    model = make()
    model.append(nn.Linear(3, 3, dtype=torch.bfloat16))
    expected = "3.weight has dtype bfloat16, expected float32 for everything=True"
    with pytest.raises(TypeError, match=re.escape(expected)):
        FOGZO(model, everything=True)


@pytest.mark.parametrize("kind", KINDS)
def test_inference_mode_is_refused_and_nothing_changes(kind):
    model = make()
    loss_of(model).backward()
    est, before = kind(model), Everything(model)
    text = f"{kind.__name__}: backward is called in torch.inference_mode(), expected a call outside"
    with torch.inference_mode(), pytest.raises(RuntimeError, match=re.escape(text)):
        est.backward(lambda: loss_of(model))
    before.assert_unchanged()
    est.backward(lambda: loss_of(model))


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_while_the_gradients_are_set_aside_loses_none(kind, monkeypatch):
    model = make()
    loss_of(model).backward()
    est, before = kind(model), Everything(model)

    def full(_: Tensor) -> Tensor:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("fogzo.estimators._snapshot.torch.zeros_like", full)
        with pytest.raises(MemoryError):
            est.backward(lambda: loss_of(model))
    before.assert_unchanged()
    est.backward(lambda: loss_of(model))
