"""One-sided differences and probes of a part of the batch: equal to a loop by hand."""

from __future__ import annotations

import math
from collections import OrderedDict, UserDict, defaultdict, namedtuple
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from helpers import multiply
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, QuantConfig
from fogzo.estimators._batch import first_rows

X, Y = torch.randn(10, 8, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 4
Pair = namedtuple("Pair", "x y")


def make(dropout: float = 0.0) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 4))
    fogzo.quantize_(model, QuantConfig(bits=2))
    return model


def loss_with(model: nn.Sequential, weights: list[Tensor], rows: int, difference: str) -> float:
    """By codes where both sides are perturbed; else as the unperturbed forward multiplies."""
    product = multiply if difference == "central" else linear
    h = torch.tanh(product(X[:rows], weights[0], model[0]))
    return F.cross_entropy(product(h, weights[1], model[3]), Y[:rows]).item()


def linear(x: Tensor, weight: Tensor, layer: nn.Linear) -> Tensor:
    return F.linear(x, weight, layer.bias)


def by_hand(model, norm, *, n, gamma, difference, rows):
    """Losses and G: the guide from all rows, the probes on the first ``rows``."""
    layers = [model[0], model[3]]
    gs = torch.autograd.grad(F.cross_entropy(model(X), Y), [layer.weight for layer in layers])
    sides = {"central": "both", "forward": "plus"}[difference]
    shared = {"seed": 5, "step": 0, "gamma": gamma, "norm": norm}
    with fk.use_backend("reference"), torch.no_grad():
        probes = [
            fk.perturb_quantize(
                layer.weight, g, layer.scale, layer.grid, tensor=i, probes=n, sides=sides, **shared
            )
            for i, (layer, g) in enumerate(zip(layers, gs, strict=True))
        ]
        base = loss_with(model, [layer.quantized_weight() for layer in layers], rows, "forward")
    with torch.no_grad():
        measured = [loss_with(model, list(s), rows, difference) for s in zip(*probes, strict=True)]
    with fk.use_backend("reference"), torch.no_grad():
        if difference == "forward":
            pairs = [[plus, base] for plus in measured]
            ds = torch.tensor([plus - base for plus in measured], dtype=torch.float64)
        else:
            pairs = [measured[2 * i : 2 * i + 2] for i in range(n)]
            ds = torch.tensor([(a - b) / 2 for a, b in pairs], dtype=torch.float64)
        estimate = [
            fk.assemble_gradient(g, layer.scale, ds, layer.surrogate, tensor=i, **shared)
            for i, (layer, g) in enumerate(zip(layers, gs, strict=True))
        ]
    return pairs, ds, estimate


CASES = [("central", 0.25), ("forward", 1.0), ("forward", 0.25)]


@pytest.mark.parametrize(("difference", "fraction"), CASES)
@pytest.mark.parametrize("n", [1, 3])
def test_it_equals_the_loop_by_hand(difference, fraction, n):
    model, rows = make(), math.ceil(fraction * len(X))
    est = FOGZO(model, probes=n, gamma=0.3, seed=5, difference=difference, probe_fraction=fraction)
    loss = est.backward(lambda b: F.cross_entropy(model(b[0]), b[1]), batch=(X, Y))
    pairs, ds, estimate = by_hand(
        model, est.last.norm, n=n, gamma=0.3, difference=difference, rows=rows
    )
    assert loss.item() == F.cross_entropy(model(X), Y).item()
    assert est.last.losses.tolist() == pairs
    assert torch.equal(est.last.difference, ds)
    assert torch.equal(model[0].weight.grad, estimate[0])
    assert torch.equal(model[3].weight.grad, estimate[1])


@pytest.mark.parametrize(
    ("difference", "fraction", "forwards"),
    [
        ("central", 1.0, 3 + 6),
        ("central", 0.5, 3 + 6),
        ("forward", 1.0, 3 + 3),
        ("forward", 0.5, 7),
    ],
)
def test_the_cost_is_counted(difference, fraction, forwards):
    model, sizes = make(), []

    def closure(batch: dict[str, Tensor]) -> Tensor:
        sizes.append(len(batch["x"]))
        return F.cross_entropy(model(batch["x"]), batch["y"])

    est = FOGZO(model, probes=3, difference=difference, probe_fraction=fraction)
    est.backward(closure, batch={"x": X, "y": Y})
    assert est.forwards == forwards
    assert len(sizes) == forwards - 2  # the backward pass counts as two and calls nothing
    assert sizes == [10] + [math.ceil(10 * fraction)] * (len(sizes) - 1)


@pytest.mark.parametrize(("difference", "fraction"), CASES)
def test_dropout_and_the_random_state_are_those_of_one_forward(difference, fraction):
    model = make(dropout=0.5)
    est = NSPSA(model, difference=difference, probe_fraction=fraction)
    torch.manual_seed(9)
    F.cross_entropy(model(X), Y)
    after_one = torch.get_rng_state()
    torch.manual_seed(9)
    est.backward(lambda b: F.cross_entropy(model(b.x), b.y), batch=Pair(X, Y))
    assert torch.equal(torch.get_rng_state(), after_one)


def test_a_loss_not_finite_in_the_base_forward_falls_back():
    model = make()
    est = FOGZO(model, difference="forward", probe_fraction=0.5)
    calls = []

    def closure(batch: tuple[Tensor, Tensor]) -> Tensor:
        calls.append(len(batch[0]))
        loss = F.cross_entropy(model(batch[0]), batch[1])
        return loss * math.nan if len(calls) == 2 else loss

    with pytest.warns(UserWarning, match="not finite"):
        est.backward(closure, batch=(X, Y))
    g = torch.autograd.grad(F.cross_entropy(model(X), Y), [model[0].weight])[0]
    assert torch.equal(model[0].weight.grad, g)
    assert est.last.fallbacks == 1


@pytest.mark.parametrize("value", [0, -0.5, 1.5, math.nan, "half"])
def test_a_fraction_out_of_range_is_refused(value):
    with pytest.raises(
        (ValueError, TypeError), match=r"FOGZO: probe_fraction is .*, expected a nu"
    ):
        FOGZO(make(), probe_fraction=value)


def test_an_unknown_difference_is_refused():
    match = "FOGZO: difference is 'backward', expected one of central, forward"
    with pytest.raises(ValueError, match=match):
        FOGZO(make(), difference="backward")


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        (None, "batch is a NoneType, expected a tensor, or a dict, list or tuple of tensors"),
        ((), "batch is a tuple, expected a tensor"),
        ((X, 3), "batch holds a int, expected a tensor"),
        ([torch.tensor(1.0)], "batch holds a 0-dim tensor, expected a tensor"),
        ((X, Y[:4]), r"batch has first dimensions \[4, 10\], expected one"),
        ((X[:0], Y[:0]), r"batch has first dimensions \[0\], expected one, at least 1"),
    ],
)
def test_a_batch_without_rows_is_refused_and_nothing_is_touched(batch, text):
    model = make()
    est = FOGZO(model, probe_fraction=0.5)
    before = torch.get_rng_state()
    with pytest.raises((ValueError, TypeError), match="FOGZO.backward: " + text):
        est.backward(lambda b: F.cross_entropy(model(b[0]), b[1]), batch=batch)
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), before)
    assert est.calls == 0


def test_a_state_of_another_kind_of_difference_is_refused():
    state = FOGZO(make(), difference="forward").state_dict()
    with pytest.raises(ValueError, match="difference is 'forward', expected 'central'"):
        FOGZO(make()).load_state_dict(state)


def test_the_rows_of_decimal_fractions_are_exact():
    for per_mille in range(1, 1000):
        for size in (1, 3, 7, 64, 100, 1000, 2**20):
            rows = first_rows("FOGZO", torch.empty(size, 0), per_mille / 1000)
            assert len(rows) == -(-per_mille * size // 1000), (per_mille, size)
    assert len(first_rows("FOGZO", torch.empty(10, 0), 0.1 + 0.2)) == 3


class Entries(UserDict):
    """Gives its entries as attributes, as the batches of Hugging Face's tokenizers do."""

    def __getattr__(self, name: str) -> Tensor:
        return self.data[name]


class Attributes(dict):
    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.__dict__ = self


class Read(dict):
    """Its constructor takes no entries, but a file."""

    def __init__(self, path: str = "rows") -> None:
        super().__init__(ids=torch.arange(4))


def test_a_mapping_keeps_its_type_where_it_can_be_made():
    for kind in (Entries, Attributes, dict, OrderedDict):
        head = first_rows("FOGZO", kind({"ids": torch.arange(4)}), 0.5)
        assert type(head) is kind
        assert head["ids"].tolist() == [0, 1]
        if kind in (Entries, Attributes):
            assert head.ids is head["ids"]
    for batch in (Read(), defaultdict(list, ids=torch.arange(4))):
        head = first_rows("FOGZO", batch, 0.5)
        assert type(head) is dict
        assert head["ids"].tolist() == [0, 1]
