"""What an estimator refuses by name: a step inside the closure, losses, scalers and states."""

from __future__ import annotations

import copy
import re
import threading

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE

KINDS = [STE, NSPSA, FOGZO]
X = torch.randn(6, 4, generator=torch.Generator().manual_seed(1))


def make() -> nn.Sequential:
    torch.manual_seed(0)
    return fogzo.quantize_(nn.Sequential(nn.Linear(4, 5), nn.ReLU(), nn.Linear(5, 3)))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(6) % 3)


@pytest.mark.parametrize("forward", [0, 1, 2])
@pytest.mark.parametrize("optimizer", [torch.optim.Adam, torch.optim.SGD])
@pytest.mark.parametrize("kind", KINDS)
def test_a_step_inside_the_closure_is_refused_and_moves_nothing(kind, optimizer, forward):
    model = make()
    est, steps = kind(model), optimizer(model.parameters(), lr=0.1)
    loss_of(model).backward()
    before = [(p, p.clone(), p.grad, p.grad.clone()) for p in model.parameters()]
    count = iter(range(9))

    def closure() -> Tensor:
        loss = loss_of(model)
        if next(count) == forward:
            steps.step()
        return loss

    if kind is STE and forward > 0:
        est.backward(closure)
        return
    text = f"{kind.__name__}.backward: closure called step() of {optimizer.__name__}, expected a c"
    with pytest.raises(RuntimeError, match=re.escape(text)):
        est.backward(closure)
    for p, bits, grad, grad_bits in before:
        assert torch.equal(p, bits)
        assert p.grad is grad
        assert torch.equal(grad, grad_bits)
    steps.step()  # outside of the closure it may
    assert not torch.equal(before[0][0], before[0][1])


def test_steps_of_other_tensors_and_of_other_threads_are_allowed():
    model, own = make(), torch.zeros(3, requires_grad=True)
    others = torch.optim.SGD([own], lr=0.1)
    own.grad = torch.ones(3)
    rival = nn.Linear(2, 2)
    rival_steps = torch.optim.SGD(rival.parameters(), lr=0.1)
    rival(torch.ones(1, 2)).sum().backward()
    refused: list[BaseException] = []
    est = FOGZO(model)

    def elsewhere() -> None:
        try:
            torch.optim.SGD(model.parameters(), lr=0.0).step()
            rival_steps.step()
        except BaseException as error:
            refused.append(error)

    def closure() -> Tensor:
        others.step()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()
        return loss_of(model)

    est.backward(closure)
    assert torch.allclose(own, torch.full((3,), -0.3))
    assert not refused


@pytest.mark.parametrize("kind", KINDS)
def test_a_complex_loss_is_refused(kind):
    model = make()
    text = f"{kind.__name__}.backward: closure returned dtype complex64, expected a real loss"
    with pytest.raises(TypeError, match=re.escape(text)):
        kind(model).backward(lambda: loss_of(model) + 0j)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize(
    ("probe", "error", "text"),
    [
        (lambda loss: (loss, loss), TypeError, "returned a tuple for a probe, expected a loss"),
        (lambda loss: loss.expand(2), ValueError, "returned shape (2,) for a probe, expected a"),
        (lambda loss: loss + 0j, TypeError, "returned dtype complex64 for a probe, expected a"),
    ],
)
@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_a_probe_that_returns_something_else_is_refused_with_what(kind, probe, error, text):
    model = make()
    est, count = kind(model), iter(range(9))
    with pytest.raises(error, match=re.escape(f"{kind.__name__}.backward: closure {text}")):
        est.backward(lambda: probe(loss_of(model)) if next(count) else loss_of(model))
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("scaler", [3, "auto", nn.ReLU()])
def test_a_scaler_that_cannot_scale_is_refused(kind, scaler):
    model = make()
    text = f"scaler is a {type(scaler).__name__}, expected a torch.amp.GradScaler or None"
    with pytest.raises(TypeError, match=re.escape(f"{kind.__name__}.backward: {text}")):
        kind(model).backward(lambda: loss_of(model), scaler=scaler)
    assert all(p.grad is None for p in model.parameters())


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_copy_needs_its_model_and_says_so(kind, used):
    model = make()
    est = kind(model)
    if used:
        est.backward(lambda: loss_of(model))
    alone = copy.deepcopy(est)
    text = "expected every quantized weight of the estimator's own model"
    with pytest.raises(RuntimeError, match=re.escape(text)) as caught:
        alone.backward(lambda: loss_of(model))
    assert "copy both at once: copy.deepcopy((model, est))" in str(caught.value)
    model.zero_grad()
    twin, both = copy.deepcopy((model, est))
    assert torch.equal(both.backward(lambda: loss_of(twin)), est.backward(lambda: loss_of(model)))
    for p, q in zip(model.parameters(), twin.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def numbers(*values: object) -> dict[str, object]:
    return {"numbers": dict(zip(("0.weight", "2.weight"), values, strict=True))}


@pytest.mark.parametrize(
    ("change", "error", "text"),
    [
        ({"calls": -1}, ValueError, "calls is -1, expected an int from 0 to 4294967296"),
        ({"calls": "x"}, ValueError, "calls is 'x', expected an int from 0"),
        ({"calls": True}, ValueError, "calls is True, expected an int from 0"),
        ({"calls": 2**32 + 1}, ValueError, "calls is 4294967297, expected an int from 0"),
        ({"forwards": 1.5}, ValueError, "forwards is 1.5, expected an int from 0"),
        ({"fallbacks": None}, ValueError, "fallbacks is None, expected an int from 0"),
        ({"fallbacks": -1}, ValueError, "fallbacks is -1, expected an int from 0"),
        ({"numbers": None}, TypeError, "numbers is a NoneType, expected a dict of the weights'"),
        ({"numbers": [0, 1]}, TypeError, "numbers is a list, expected a dict of the weights'"),
        (
            numbers(1, 1),
            ValueError,
            "numbers has 1 for both '0.weight' and '2.weight', expected an",
        ),
        (numbers(0, None), ValueError, "numbers has None for '2.weight', expected an int from 0"),
        (numbers(0, -1), ValueError, "numbers has -1 for '2.weight', expected an int from 0 to"),
        (numbers(0, 2**32 - 1), ValueError, "has 4294967295 for '2.weight', expected an int from"),
    ],
)
@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_a_state_that_no_estimator_made_is_refused_and_changes_nothing(kind, change, error, text):
    est = kind(make())
    before = est.state_dict()
    with pytest.raises(error, match=re.escape(text)) as caught:
        est.load_state_dict(before | {"calls": 7, "forwards": 35, "fallbacks": 1} | change)
    assert str(caught.value).startswith(f"{kind.__name__}.load_state_dict: ")
    assert est.state_dict() == before


@pytest.mark.parametrize("kind", KINDS)
def test_a_state_that_is_no_dict_is_refused(kind):
    with pytest.raises(TypeError, match="load_state_dict: state is a list, expected the dict that"):
        kind(make()).load_state_dict([])


@pytest.mark.parametrize("value", ["False", 1, None, torch.tensor(True)])
@pytest.mark.parametrize("option", ["everything", "allow_unused", "check", "capturable"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_switch_is_true_or_false(kind, option, value):
    if kind is STE and option == "everything":
        return
    text = f"{kind.__name__}: {option} is {value!r}, expected True or False"
    with pytest.raises(TypeError, match=re.escape(text)):
        kind(make(), **{option: value})
