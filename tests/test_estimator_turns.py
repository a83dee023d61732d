"""Closures that torch.vmap cannot map: probes one after the other, with a reason, until it can."""

from __future__ import annotations

import functools
import re
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batched_nets import X, Y, loss_of, make
from torch import Tensor, nn

from fogzo import FOGZO
from fogzo.estimators import _turns


class Tracks(nn.Module):
    """Writes what it sees into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x.detach().mean(0))
        return x


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().abs().max().item() + 1)


class Draws(nn.Module):
    """Draws by the values it sees: what torch.vmap has no common numbers for."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.bernoulli(x.detach().sigmoid())


class Writes(nn.Module):
    """Writes into a tensor from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.zeros(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x
        self.out.copy_(x)
        return self.out.clone()


class Stranger(nn.Module):
    """Draws another number where it meets a mapped tensor: its masks are not the step's."""

    def forward(self, x: Tensor) -> Tensor:
        if torch._C._functorch.is_batchedtensor(x):
            torch.rand(1)
        return F.dropout(x)


WHY = {
    Tracks: "output with shape .* doesn't match the broadcast shape",
    Branches: "data-dependent control flow",
    Reads: r"\.item\(\)",
    Draws: "randomness",
    Writes: "vmap: inplace arithmetic",
    Stranger: "it draws other random numbers than one forward does",
}


@pytest.mark.parametrize("module", WHY)
def test_what_cannot_be_mapped_falls_back_with_a_reason(module):
    model, plain = make(), make()
    for own in (model, plain):
        own.insert(2, module())
    est = FOGZO(model, probes=2, gamma=0.1, probes_mode="batched")
    text = f"^FOGZO: probes_mode 'batched' is not possible here.*{WHY[module]}"
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match=text):
        est.backward(loss_of(model), batch=(X, Y))
    assert est.last.probes_mode == "sequential"
    assert est.last.why_sequential == est.why_sequential
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        est.backward(loss_of(model), batch=(X, Y))
    other = FOGZO(plain, probes=2, gamma=0.1)
    torch.manual_seed(3)
    for _ in range(2):
        other.backward(loss_of(plain), batch=(X, Y))
    assert torch.equal(est.last.losses, other.last.losses)
    for (name, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_closures_own_error_is_its_own():
    model = make()
    est = FOGZO(model, probes_mode="batched")

    def closure() -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("mine")
        return loss_of(model)((X, Y))

    with pytest.warns(UserWarning, match="mine"), pytest.raises(RuntimeError, match="^mine$"):
        est.backward(closure)
    assert all(p.grad is None for p in model.parameters())

    def wrong() -> Tensor:
        loss = loss_of(model)((X, Y))
        return loss if torch.is_grad_enabled() else [loss]  # type: ignore[return-value]

    est = FOGZO(model, probes_mode="batched")
    with pytest.raises(TypeError, match="closure returned a list for a probe"):
        est.backward(wrong)


def test_the_reason_is_kept_in_the_state():
    model = make()
    model.insert(2, Reads())
    est = FOGZO(model, probes_mode="batched")
    with pytest.warns(UserWarning, match="one after the other"):
        est.backward(loss_of(model), batch=(X, Y))
    again = FOGZO(model, probes_mode="batched")
    again.load_state_dict(est.state_dict())
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.backward(loss_of(model), batch=(X, Y))
        assert again.why_sequential == est.why_sequential
        assert len(calls) == 3  # not tried
        ((name, (why, skipped)),) = est.state_dict()["why_sequential"].items()
        assert skipped == 0
        reasons = {name: [why, 99]}
        again.load_state_dict(est.state_dict() | {"why_sequential": reasons})
        again.backward(loss_of(model), batch=(X, Y))
        assert len(calls) == 3 + 4  # tried, and nothing said
        reasons = {name: [why, 0]}
    assert again.state_dict()["why_sequential"] == reasons
    for value in (3, {"a": "why"}, {"a": ["why", -1]}, {"a": [None, 0]}, {1: ["why", 0]}):
        bad = {**est.state_dict(), "why_sequential": value}
        with pytest.raises(TypeError, match=r"why_sequential is .*, expected texts and counts"):
            again.load_state_dict(bad)
    with pytest.raises(ValueError, match="probes_mode is 'batched', expected 'sequential'"):
        FOGZO(model).load_state_dict(est.state_dict())


class Switched(nn.Module):
    """Reads a value, which torch.vmap cannot, while it is on."""

    on = True

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().abs().max().item() + 1) if self.on else x


class Steps:
    """Calls of an estimator: how many forwards each took, and by which mode."""

    def __init__(self, switch: Callable[[nn.Module], bool] = lambda model: True) -> None:
        self.model = make()
        self.model.insert(2, Switched())
        self.model[2].register_forward_pre_hook(
            lambda module, _: setattr(module, "on", switch(module))
        )
        self.est = FOGZO(self.model, gamma=0.1, probes_mode="batched")
        self.forwards = 0
        self.model[0].register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.forwards += 1

    def one(self, closure: Callable[..., Tensor] | None = None) -> tuple[str, int]:
        before = self.forwards
        self.est.backward(closure or loss_of(self.model), batch=(X, Y))
        assert self.est.why_sequential == self.est.last.why_sequential
        assert (self.est.why_sequential is None) == (self.est.last.probes_mode == "batched")
        return self.est.last.probes_mode, self.forwards - before


def test_a_cause_that_passes_unseen_is_found_to_have_passed():
    """At every hundredth call; between them nothing is paid for it."""
    steps = Steps(lambda module: steps.est.calls < 60)
    with pytest.warns(UserWarning, match="one after the other") as found:
        seen = [steps.one() for _ in range(102)]
    assert len(found) == 1
    assert seen[0] == ("sequential", 4)  # the step's, a try, and two in turn
    assert set(seen[1:100]) == {("sequential", 3)}
    assert seen[100:] == [("batched", 2)] * 2


def test_a_cause_that_stays_is_tried_at_every_hundredth_call():
    steps = Steps()
    with pytest.warns(UserWarning, match="one after the other") as found:
        seen = [steps.one() for _ in range(102)]
    assert len(found) == 1
    assert [i for i, step in enumerate(seen) if step == ("sequential", 4)] == [0, 100]


def test_other_circumstances_are_tried_at_once():
    steps = Steps(lambda module: module.training)
    with pytest.warns(UserWarning, match="one after the other"):
        assert steps.one() == ("sequential", 4)
    steps.model.eval()
    assert steps.one() == ("batched", 2)
    assert steps.one() == ("batched", 2)
    steps.model.train()
    assert steps.one() == ("sequential", 3)  # known from before


def test_each_closure_has_a_reason_of_its_own():
    steps = Steps(lambda module: False)

    def reads(batch: Any) -> Tensor:
        loss = loss_of(steps.model)(batch)
        return loss * (1 + 0 * loss.detach().item())

    assert steps.one() == ("batched", 2)
    with pytest.warns(UserWarning, match="one after the other"):
        assert steps.one(reads) == ("sequential", 4)
    assert steps.one() == ("batched", 2)
    assert steps.one(reads) == ("sequential", 3)
    assert steps.one(functools.partial(reads)) == ("sequential", 3)
    (text,) = steps.est.state_dict()["why_sequential"]
    assert re.fullmatch(r".*reads:\d+, train, autocast None", text)
    for i in range(20):  # as many closures as one likes
        scope: dict[str, Any] = {"reads": reads}
        exec(f"def closure_{i}(batch): return reads(batch)", scope)
        steps.one(scope[f"closure_{i}"])
    assert len(steps.est.state_dict()["why_sequential"]) == 16


class Callable_:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, batch: Any) -> Tensor:
        return loss_of(self.model)(batch)

    def method(self, batch: Any) -> Tensor:
        return self(batch)


def test_closures_without_code_of_their_own():
    steps = Steps(lambda module: False)
    own = Callable_(steps.model)
    assert steps.one(own) == ("batched", 2)
    assert steps.one(own.method) == ("batched", 2)


def test_a_closure_that_raises_by_itself_is_tried_again():
    steps, raising = Steps(lambda module: False), [True]

    def closure(batch: Any) -> Tensor:
        if raising[0] and not torch.is_grad_enabled():
            raise RuntimeError("mine")
        return loss_of(steps.model)(batch)

    with pytest.warns(UserWarning, match="mine"), pytest.raises(RuntimeError, match="^mine$"):
        steps.one(closure)
    steps.one()
    raising[0] = False
    assert steps.one(closure) == ("batched", 2)


def test_a_capture_tries_no_refused_closure_again():
    """A try that fails would end the capture; the first eager call behind it tries."""
    turns = _turns.Turns()
    assert turns.known("closure") is None
    turns.note("no rule")
    for _ in range(2 * _turns.AGAIN):
        assert turns.known("closure", captured=True) == "no rule"
        turns.note("no rule")
    assert turns.known("closure") is None
