"""One plan of a whole list serves the lists that its checks would pass, and no other."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import assert_another_backend_refuses

import fogzo_kernels as fk

GRID = fk.Grid("mid-rise", 2)
SHARED: dict[str, Any] = {"seed": 1, "step": 1, "gamma": 0.5, "norm": 1.0}


def lists() -> dict[str, list[Any]]:
    """Two tensors and their guides and scales, of unequal shapes."""
    generator = torch.Generator().manual_seed(0)
    ws = [torch.randn(shape, generator=generator) for shape in ((2, 8), (3, 5))]
    return {"ws": ws, "grads": [w.flip(1) for w in ws], "scales": [torch.tensor(0.5)] * 2}


def perturb(**given: Any) -> list[Any]:
    arrays = {**lists(), "grids": GRID, "surrogates": None, **SHARED, "tensors": [0, 1]}
    return fk.perturb_quantize_many(**arrays | given)


def assemble(**given: Any) -> list[Any]:
    arrays = {name: array for name, array in lists().items() if name != "ws"}
    more = {"differences": torch.ones(1), "surrogates": "clipped", **SHARED, "tensors": [0, 1]}
    return fk.assemble_gradient_many(**arrays | more | given)


def second(name: str, change: Any) -> dict[str, Any]:
    """The list of this name with its second entry changed."""
    first, other = lists()[name]
    return {name: [first, change(other)]}


BOTH = [
    second("grads", torch.Tensor.double),
    second("grads", torch.Tensor.numpy),
    second("grads", lambda grad: grad.to("meta")),
    second("scales", lambda _: torch.ones(2, 1)),
    second("scales", lambda _: None),
    second("scales", torch.zeros_like),
    second("scales", torch.Tensor.double),
    {"grads": [*lists()["grads"], torch.ones(2, 8)]},
    {"grads": torch.ones(2, 2, 8)},
    {"scales": torch.ones(2)},
    {"surrogates": ["clipped", "no such"]},
    {"surrogates": ["clipped", ["clipped"]]},
    {"surrogates": ["clipped"]},
    {"tensors": [0]},
    {"tensors": 0},
    {"tensors": [0, True]},
    {"tensors": [0, 1.0]},
    {"offsets": [1]},
    {"offsets": [1, 1.0]},
    {"offsets": [1, True]},
    {"offsets": True},
    {"row_pitches": [None, 4]},
    {"row_pitches": [9]},
    {"row_pitches": 9.0},
    {"first_probe": True},
    {"noise": "no such"},
    {"outs": [None]},
]
PERTURBED = [
    second("ws", lambda w: w.reshape(5, 3)),
    {"grids": [GRID]},
    {"grids": [GRID, "mid-rise"]},
    {"grids": [GRID, None], "form": "codes"},
    {"probes": 1.0},
    {"flip_counts": torch.zeros(2, 2)},
    {"flip_counts": torch.zeros(2, 3, dtype=torch.int64)},
    {"flip_counts": torch.zeros(2, 2, dtype=torch.int64, device="meta")},
    {"flip_counts": torch.zeros(2, 4, dtype=torch.int64)[:, ::2]},
]
EACH = {
    "tensors": "tensor",
    "offsets": "offset",
    "row_pitches": "row_pitch",
    "surrogates": "surrogate",
}
CASES = [(call, given) for given in BOTH for call in (perturb, assemble)]


@pytest.mark.parametrize(
    ("call", "given"), [*CASES, *((perturb, given) for given in PERTURBED)],
    ids=lambda value: "" if callable(value) else "-".join(value),
)  # fmt: skip
def test_what_is_refused_first_is_refused_later(call, given):
    with pytest.raises((TypeError, ValueError)) as first:
        call(**given)
    call()
    call(offsets=1, row_pitches=9)
    call(offsets=[1, 1], row_pitches=[9, 9], surrogates=["clipped", "clipped"], first_probe=1)
    if call is perturb:
        call(flip_counts=torch.zeros(2, 2, dtype=torch.int64), grids=[GRID, GRID])
        call(form="codes")
    with pytest.raises(type(first.value)) as later:
        call(**given)
    assert str(later.value) == str(first.value)
    assert ", expected " in str(first.value)


@pytest.mark.parametrize("call", [perturb, assemble])
@pytest.mark.parametrize(
    "change",
    [
        lambda array: array.expand(2, *array.shape)[1],
        lambda array: array.mT.contiguous().mT if array.ndim else array,
        lambda array: array.clone().requires_grad_(),
        lambda array: torch.nn.Parameter(array),
        lambda array: torch.cat([array.reshape(-1)[:1], array.reshape(-1)])[1:].view(array.shape),
    ],
    ids=["expanded", "transposed", "requires_grad", "Parameter", "within"],
)
def test_how_an_array_lies_is_no_part_of_a_plan(call, change):
    want = call()
    for name, arrays in lists().items():
        if call is assemble and name == "ws":
            continue
        got = call(**{name: [arrays[0], change(arrays[1])]})
        assert all(map(torch.equal, got, want)), name


@pytest.mark.parametrize("call", [perturb, assemble])
def test_the_values_of_a_call_are_its_own(call):
    call()
    for name, value in [
        ("seed", 2), ("step", 2), ("gamma", 0.25), ("norm", torch.tensor(0.5)), ("tensors", [0, 5]),
        ("offsets", [0, 3]), ("row_pitches", [None, 6]), ("first_probe", 1),
        ("surrogates", ["identity", "clipped"]), ("noise", "rademacher"),
    ]:  # fmt: skip
        got = call(**{name: value})
        assert all(map(torch.equal, got, alone(call, name, value))), name


def alone(call: Any, name: str, value: Any) -> list[Any]:
    """The results of the calls of single tensors."""
    results = []
    for i, (w, grad, scale) in enumerate(zip(*lists().values(), strict=True)):
        one = {"tensor": i, "surrogate": "clipped", **SHARED}
        one[EACH.get(name, name)] = value[i] if name in EACH else value
        if call is perturb:
            results.append(fk.perturb_quantize(w, grad, scale, GRID, **one))
        else:
            results.append(fk.assemble_gradient(grad, scale, torch.ones(1), **one))
    return results


@pytest.mark.parametrize("call", [perturb, assemble])
def test_a_number_in_an_array_is_read_in_every_call(call):
    offset = torch.tensor(1)
    for value in (1, 2):
        offset.fill_(value)
        for given in (offset, [offset, offset]):
            got, want = call(offsets=given), call(offsets=value)
            assert all(map(torch.equal, got, want))


@pytest.mark.parametrize("call", [perturb, assemble])
def test_a_plan_is_not_bound_to_the_backend_that_ran_it_first(call):
    assert_another_backend_refuses(call)


def test_flips_are_counted_for_the_tensors_that_are_rounded():
    counts = torch.full((2, 2), -1)
    for _ in range(2):
        perturb(grids=[None, GRID], flip_counts=counts.fill_(-1))
        assert counts[0].tolist() == [0, 0]
        with fk.use_backend("reference"):
            want = torch.full((2, 2), -1)
            perturb(grids=[None, GRID], flip_counts=want)
        assert torch.equal(counts, want)
