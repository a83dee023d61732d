"""check=True: a closure that gives another loss the second time is refused, and named."""

from __future__ import annotations

import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE
from fogzo.estimators._repeat import CHUNK, _digest, first_difference

KINDS = [STE, NSPSA, FOGZO]
X = torch.randn(8, 4, generator=torch.Generator().manual_seed(1))
Y = torch.arange(8) % 3


class Jitter(nn.Module):
    """Noise that torch's global random state does not rule."""

    def __init__(self) -> None:
        super().__init__()
        self.generator = torch.Generator().manual_seed(5)

    def forward(self, x: Tensor) -> Tensor:
        return x + 0.1 * torch.randn(x.shape, generator=self.generator)


def make(*extra: nn.Module, bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(4, 5, bias=bias), nn.BatchNorm1d(5), nn.Dropout(0.5), *extra,
        nn.Linear(5, 3, bias=bias),
    )  # fmt: skip
    return fogzo.quantize_(model)


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def fresh_batches(model: nn.Module):
    """A closure that draws its batch itself, from a loader with its own generator."""
    generator = torch.Generator().manual_seed(2)

    def closure() -> Tensor:
        rows = torch.randperm(8, generator=generator)[:4]
        return F.cross_entropy(model(X[rows]), Y[rows])

    return closure


def noisy_loss(model: nn.Module):
    generator = torch.Generator().manual_seed(2)
    return lambda: loss_of(model) + 0.01 * torch.rand((), generator=generator)


def skipped_layers(model: nn.Module):
    """As a drop path that draws from Python's own random numbers."""
    coin = iter([True, False] * 9)

    def closure() -> Tensor:
        x = model[1](model[0](X))
        return F.cross_entropy(model[3](model[2](x) if next(coin) else x), Y)

    return closure


BAD = {
    "batch": (fresh_batches, make, "the input of the model"),
    "module": (
        lambda m: lambda: loss_of(m),
        lambda: make(Jitter()),
        "the output of '3' (Jitter)",
    ),
    "loss": (noisy_loss, make, "what the closure does outside of the model's modules"),
    "path": (skipped_layers, make, "the modules that run (the input of '"),
}


@pytest.mark.parametrize("bad", BAD)
@pytest.mark.parametrize("kind", KINDS)
def test_a_closure_that_is_not_repeatable_is_found_by_name(kind, bad):
    closure_of, make_model, where = BAD[bad]
    model = make_model()
    est, closure = kind(model, check=True), closure_of(model)
    before = [(p, p.detach().clone()) for p in model.parameters()]
    buffers = [b.clone() for b in model.buffers()]
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError) as caught:
        est.backward(closure)
    text = str(caught.value)
    assert text.startswith(f"{kind.__name__}.backward: closure returned ")
    assert f"what differs first: {where}" in text
    assert "expected the same loss bit for bit: take the batch outside of it" in text
    for p, bits in before:
        assert p.grad is None
        assert torch.equal(p, bits)
    assert (est.calls, est.last) == (0, None)
    if kind is not STE:
        assert torch.equal(torch.get_rng_state(), state)
        for b, bits in zip(model.buffers(), buffers, strict=True):
            assert torch.equal(b, bits)


@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no bias"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_repeatable_closure_gives_the_same_step_with_the_check(kind, bias):
    """Dropout and BatchNorm's statistics are as after one forward."""
    found = []
    for check in (False, True):
        model = make(bias=bias)
        est = kind(model, check=check)
        torch.manual_seed(7)
        losses = [est.backward(lambda m=model: loss_of(m)).item() for _ in range(3)]
        gradients = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        found.append((losses, gradients, list(model.buffers()), torch.get_rng_state()))
    (a, ga, ba, ra), (b, gb, bb, rb) = found
    assert a == b
    assert all(torch.equal(p, q) for p, q in zip(ga + ba, gb + bb, strict=True))
    assert torch.equal(ra, rb)


def test_only_the_first_call_is_checked_and_forwards_count_as_without():
    model, calls = make(), []

    def closure() -> Tensor:
        calls.append(1)
        return loss_of(model)

    est = FOGZO(model, check=True)
    est.backward(closure)
    assert len(calls) == 4
    est.backward(closure)
    assert len(calls) == 7
    assert est.forwards == 10


def test_a_repeat_that_gives_no_loss_is_refused():
    model = make()
    losses = iter([lambda: loss_of(model), lambda: model(torch.zeros(2, 4))])
    text = "closure returned shape (2, 3) when it was repeated, expected a loss"
    with pytest.raises(ValueError, match=re.escape(text)):
        FOGZO(model, check=True).backward(lambda: next(losses)())


@pytest.mark.parametrize("misuse", ["backward", "zero_grad"])
def test_a_repeat_that_touches_gradients_is_refused(misuse):
    model, count = make(), iter(range(9))

    def closure() -> Tensor:
        loss = loss_of(model)
        if next(count) == 1:
            if misuse == "backward":
                loss.backward(retain_graph=True)
            else:
                model[0].weight.grad = torch.zeros_like(model[0].weight)
        return loss

    text = "closure called zero_grad() or backward() when it was repeated, expected a closure of"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        FOGZO(model, check=True).backward(closure)
    assert all(p.grad is None for p in model.parameters())


def test_the_first_call_with_nan_is_refused_as_ever():
    model = make()
    with pytest.raises(FloatingPointError, match="closure returned nan, expected a finite loss"):
        FOGZO(model, check=True).backward(lambda: loss_of(model) * float("nan"))


@pytest.mark.parametrize(
    "dtype",
    [torch.float32, torch.bfloat16, torch.float64, torch.int64, torch.bool, torch.complex64,
     torch.complex128],
)  # fmt: skip
def test_a_digest_sees_every_bit_and_place(dtype):
    a = (torch.arange(CHUNK + 3) % 2).to(dtype)
    for other in (a.roll(1), a[:-1], a[None]):
        assert _digest([a]) != _digest([other])
    last = a.clone()
    last[-1] = ~last[-1] if dtype is torch.bool else 1 - last[-1]
    assert _digest({"x": (a,)}) != _digest({"x": (last,)})
    assert _digest([a, 3, None]) == _digest((a.clone(),))


def test_a_run_that_stops_early_differs_in_its_modules():
    model, count = make(), iter(range(9))

    def forward() -> None:
        x = model[0](X)
        if next(count) == 0:
            model[1](x)

    assert first_difference(model, forward) == (
        "the modules that run (4 and then 2 inputs and outputs)"
    )
    assert all(not m._forward_hooks and not m._forward_pre_hooks for m in model.modules())


@pytest.mark.parametrize("kind", KINDS)
def test_the_random_state_is_the_first_forwards_whatever_the_repeat_draws(kind):
    model, count = make(), iter(range(9))

    def closure() -> Tensor:
        loss = loss_of(model)
        if next(count) == 1:
            torch.rand(3)
        return loss

    torch.manual_seed(7)
    kind(model, check=True).backward(closure)
    after = torch.get_rng_state()
    torch.manual_seed(7)
    loss_of(model)
    assert torch.equal(after, torch.get_rng_state())
