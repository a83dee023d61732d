"""Checks made once for equal signatures refuse in a later call what they refuse in the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch

import fogzo_kernels as fk
from fogzo_kernels import _plans

W, SCALE, GRID = torch.ones(2, 8), torch.full((2, 1), 0.5), fk.Grid("mid-rise", 2)
GOOD: dict[str, Any] = {
    "seed": 1, "step": 1, "tensor": 1, "first_probe": 1, "offset": 0, "gamma": 0.5, "norm": 1.0,
}  # fmt: skip


def perturb(w: Any = W, scale: Any = SCALE, grid: Any = GRID, surrogate: Any = None, **given: Any):
    return fk.perturb_quantize(w, w, scale, grid, surrogate, **{**GOOD, **given})


def assemble(w: Any = W, scale: Any = SCALE, surrogate: Any = "clipped", **given: Any):
    return fk.assemble_gradient(w, scale, torch.ones(1), surrogate, **{**GOOD, **given})


def backward(w: Any = W, scale: Any = SCALE, surrogate: Any = "clipped", **given: Any):
    return fk.fake_quantize_backward(w, w, scale, GRID, surrogate, **given)


NUMBERS = [{name: value} for name in ("tensor", "first_probe", "offset") for value in (True, 1.0)]
OTHERS = [
    {"seed": 2**64},
    {"step": -1},
    {"gamma": 1.5},
    {"norm": -1.0},
    {"surrogate": ["clipped"]},
    {"noise": {}},
    {"w": W.double()},
    {"w": W.numpy()},
    {"scale": torch.ones(3, 1)},
    {"scale": torch.zeros(2, 1)},
    {"row_pitch": 7},
]


@pytest.mark.parametrize("given", NUMBERS + OTHERS, ids=str)
@pytest.mark.parametrize("call", [perturb, assemble])
def test_what_is_refused_first_is_refused_later(call, given):
    with pytest.raises((TypeError, ValueError)) as first:
        call(**given)
    call()
    call(tensor=1, first_probe=1, offset=1)
    with pytest.raises(type(first.value)) as later:
        call(**given)
    assert str(later.value) == str(first.value)
    assert ", expected " in str(first.value)


@pytest.mark.parametrize(
    "given",
    [{"limit": float("nan")}, {"limit": 0.0}, {"limit": "1"}, {"limit": [1.0]}, {"surrogate": {}},
     {"surrogate": "trust", "limit": 1.0}, {"w": W.double()}, {"scale": torch.zeros(2, 1)},
     {"out": W}, {"out": torch.ones(2, 8, dtype=torch.float64)}, {"out": torch.ones(8, 2).T}],
    ids=str,
)  # fmt: skip
def test_a_gradient_that_is_refused_first_is_refused_later(given):
    with pytest.raises((TypeError, ValueError)) as first:
        backward(**given)
    backward()
    backward(limit=1.0)
    backward(out=torch.ones(2, 8))
    with pytest.raises(type(first.value)) as later:
        backward(**given)
    assert str(later.value) == str(first.value)
    assert ", expected " in str(first.value)


def test_the_parts_of_many_are_checked_each():
    def call(*scales: Any) -> Any:
        given = {"seed": 0, "step": 0, "gamma": 0.5, "norm": 1.0}
        return fk.perturb_quantize_many([W, W], [W, W], scales, GRID, tensors=[0, 1], **given)

    call(SCALE, SCALE)
    with pytest.raises(ValueError, match=r"scale has shape \(3, 1\)"):
        call(SCALE, torch.ones(3, 1))
    with pytest.raises(TypeError, match="first is a torch array, expected numpy"):
        fk.perturb_quantize_many(
            [W, W.numpy()], [W, W.numpy()], [SCALE, SCALE.numpy()], GRID, tensors=[0, 1],
            seed=0, step=0, gamma=0.5, norm=1.0,
        )  # fmt: skip


def test_plans_are_forgotten_before_there_are_too_many(monkeypatch):
    monkeypatch.setattr(_plans, "MOST", 3)
    plans: _plans.Plans[int] = _plans.Plans()
    made = []
    for i in (0, 1, 2, 2, 3, 0):
        plans.find((i,), lambda i=i: made.append(i) or i)
    assert made == [0, 1, 2, 3, 0]
    assert len(plans._known) <= 3


@pytest.mark.parametrize("call", [perturb, assemble])
def test_a_plan_is_not_bound_to_the_backend_that_ran_it_first(call):
    refused = [name for name in ("triton", "cuda") if fk.why_not(name) is not None]
    if not refused:
        pytest.skip("no backend is refused here")
    call()
    with fk.use_backend(refused[0]), pytest.raises(RuntimeError, match="no backend takes this"):
        call()
    call()


@pytest.mark.parametrize("call", [perturb, assemble])
def test_the_scalars_of_a_call_are_its_own(call):
    """What a plan settles is not what the first call was given beside it."""
    first = call(seed=1, step=1, gamma=0.5, norm=1.0)
    for other in ({"seed": 2}, {"step": 2}, {"gamma": 0.25}, {"norm": 0.5}, {"tensor": 2}):
        got = call(**{"seed": 1, "step": 1, "gamma": 0.5, "norm": 1.0, **other})
        with fk.use_backend("reference"):
            want = call(**{"seed": 1, "step": 1, "gamma": 0.5, "norm": 1.0, **other})
        assert torch.equal(got, want)
        assert not torch.equal(got, first) or call is perturb
