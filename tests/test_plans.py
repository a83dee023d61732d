"""Checks made once for equal signatures refuse in a later call what they refuse in the first."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import assert_another_backend_refuses

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
    {"w": W.to_sparse()},
    {"scale": SCALE.to_sparse()},
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
     {"surrogate": "trust", "limit": 1.0}, {"w": W.double()}, {"w": W.to_sparse()},
     {"scale": torch.zeros(2, 1)}, {"out": W}, {"out": torch.ones(2, 8, dtype=torch.float64)},
     {"out": torch.ones(8, 2).T}],
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
    assert_another_backend_refuses(call)


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


CODES = torch.ones(2, 8, dtype=torch.uint8)
BAD: dict[str, tuple[Any, list[Any], list[Any]]] = {  # operation, calls it takes and refuses
    "quantize": (
        lambda w=W, scale=SCALE, **given: fk.quantize(w, scale, GRID, **given),
        [{}, {"out": torch.ones_like(CODES)}],
        [{"scale": torch.ones(3, 1)}, {"scale": torch.zeros(2, 1)}, {"w": W.double()}, {"out": W},
         {"w": W.numpy()}, {"out": CODES[:1]}, {"out": CODES.T}, {"out": CODES.numpy()}],
    ),
    "fake_quantize": (
        lambda w=W, grid=GRID, **given: fk.fake_quantize(w, SCALE, grid, **given),
        [{}, {"out": torch.ones(2, 8)}],
        [{"grid": 2}, {"grid": [2]}, {"out": CODES}, {"out": torch.ones(8, 2)}, {"out": SCALE}],
    ),
    "whitened_norm": (
        lambda grads=(W, W), scales=(SCALE, SCALE), surrogate="clipped", **given: fk.whitened_norm(
            grads, scales, surrogate, **given
        ),
        [{}, {"surrogate": ["clipped"] * 2}, {"out": torch.ones(())}],
        [{"grads": (W, W.T)}, {"grads": (W, W.double())}, {"scales": (SCALE,)}, {"grads": W},
         {"scales": (SCALE, torch.ones(3, 1))},
         {"scales": (SCALE, torch.zeros(2, 1))}, {"surrogate": ["clipped"]}, {"surrogate": {}},
         {"noise": "no"}, {"out": torch.ones(1)}, {"out": torch.ones((), dtype=torch.float64)},
         {"grads": (W, W.numpy())}],
    ),
    "compute_scale": (
        lambda w=W, *rule, **given: fk.compute_scale(w, GRID, *rule, **given),
        [{}, {"granularity": "group", "group_size": 1}],
        [{"granularity": "group", "group_size": True}, {"granularity": "group", "group_size": 1.0},
         {"granularity": "group", "group_size": 3}, {"rule": "no"}, {"rule": []}, {"group_size": 1},
         {"w": W / 0}, {"w": W[:0]}, {"out": torch.ones(2)}, {"w": W.double()}],
    ),
    "pack": (
        lambda codes=CODES, bits=1, **given: fk.pack(codes, bits, **given),
        [{}, {"bits": 2}],
        [{"bits": True}, {"bits": 1.0}, {"codes": 2 * CODES}, {"codes": W},
         {"out": fk.Packed(CODES, 1, (2, 8))}, {"out": fk.Packed(CODES[:, :1], 2, (2, 8))}],
    ),
    "hadamard": (
        lambda x=W, block=1, **given: fk.hadamard(x, block, **given),
        [{}, {"block": 2}, {"out": torch.ones(2, 8)}],
        [{"block": True}, {"block": 1.0}, {"block": 3}, {"x": W.double()}, {"out": W.T}],
    ),
    "hadamard_quantize": (
        lambda w=W, form="values", **given: fk.hadamard_quantize(w, GRID, form, **given),
        [{}, {"form": "codes"}],
        [{"form": "no"}, {"form": []}, {"w": W / 0}, {"w": W[:0]}, {"w": W.double()},
         {"out": (CODES, SCALE)}, {"out": (W.clone(), W)}],
    ),
    "quantize_activation": (
        lambda x=W, bits=1, **given: fk.quantize_activation(x, bits, **given),
        [{}, {"bits": 8}],
        [{"bits": True}, {"bits": 1.0}, {"bits": 9}, {"x": W.double()}, {"x": W[0, 0]},
         {"out": (CODES, SCALE)}],
    ),
}  # fmt: skip
REFUSED = [(op, given) for op, (_, _, refused) in BAD.items() for given in refused]


@pytest.mark.parametrize(("op", "given"), REFUSED, ids=str)
def test_each_operation_refuses_later_what_it_refuses_first(op, given):
    call, taken, _ = BAD[op]
    with pytest.raises((TypeError, ValueError)) as first:
        call(**given)
    for good in taken:
        call(**good)
    with pytest.raises(type(first.value)) as later:
        call(**given)
    assert str(later.value) == str(first.value)
    assert ", expected " in str(first.value)
