"""Every field of est.last against what the closure returned and the formulas of the algorithm."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, STE

X = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(12) % 4
E = 1 / (2 * math.sqrt(3))  # radius of clipped, in bins


def make() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 4))
    return fogzo.quantize_(model, fogzo.QuantConfig(bits=2))


class Closure:
    """A closure that keeps what it returned."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.returned = model, []

    def __call__(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        loss = F.cross_entropy(self.model(batch[0]), batch[1])
        self.returned.append(loss.item())
        return loss


def plain_gradients(model: nn.Module) -> list[Tensor]:
    weights = [model[0].weight, model[2].weight]
    return list(torch.autograd.grad(F.cross_entropy(model(X), Y), weights))


MODES: list[tuple[str, dict[str, Any]]] = [
    ("central", {}),
    ("rademacher", {"noise": "rademacher"}),
    ("forward", {"difference": "forward"}),
    ("fraction", {"probe_fraction": 0.25}),
    ("forward and fraction", {"difference": "forward", "probe_fraction": 0.25}),
    ("int8", {"probe_dtype": "int8"}),
    ("forward and int8", {"difference": "forward", "probe_dtype": "int8"}),
    ("everything", {"everything": True}),
]
modes = pytest.mark.parametrize("options", [o for _, o in MODES], ids=[name for name, _ in MODES])
scaled = pytest.mark.parametrize("scale", [None, 256.0], ids=["", "scaler"])


def expected_losses(returned: list[float], options: dict[str, Any], n: int) -> list[list[float]]:
    """The pairs, from the losses in the order in which they were measured."""
    first, *probes = returned
    if options.get("difference") != "forward":
        return [probes[2 * i : 2 * i + 2] for i in range(n)]
    own = "probe_fraction" in options or "probe_dtype" in options
    base, sides = (probes[0], probes[1:]) if own else (first, probes)
    return [[side, base] for side in sides]


@modes
@scaled
@pytest.mark.parametrize("n", [1, 3])
def test_every_field_of_fogzo(options, scale, n):
    model, gamma = make(), 0.25
    gs = plain_gradients(model)
    closure, est = Closure(model), FOGZO(model, probes=n, gamma=gamma, seed=3, **options)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    assert est.last is None
    loss = est.backward(closure, batch=(X, Y), scaler=scaler)
    last = est.last
    assert last.loss is loss
    assert (last.loss.shape, last.loss.dtype, last.loss.requires_grad) == ((), X.dtype, False)
    assert last.loss.item() == closure.returned[0]
    pairs = expected_losses(closure.returned, options, n)
    assert (last.losses.dtype, last.losses.tolist()) == (torch.float64, pairs)
    sides = 1 if options.get("difference") == "forward" else 2
    ds = [(a - b) / sides for a, b in pairs]
    assert (last.difference.dtype, last.difference.tolist()) == (torch.float64, ds)
    eps = 2.0**-23
    resolution = [abs(a - b) / (eps * max(a, b)) for a, b in pairs]
    assert last.resolution.tolist() == resolution
    assert last.gamma == gamma
    assert last.fallbacks == 0
    assert last.forwards == len(closure.returned) + 2
    check_guided(model, est, gs, n, options)
    assert torch.equal(last.ratio, last.difference / last.predicted)


def check_guided(model, est, gs, n, options) -> None:
    """norm, predicted and flips, from g by the formulas, in float64."""
    last, layers = est.last, [model[0], model[2]]
    e = 0.5 if options.get("noise") == "rademacher" else E
    units = [e * layer.scale.double().expand_as(layer.weight) for layer in layers]
    whitened = [u * g.double() for u, g in zip(units, gs, strict=True)]
    biases: list[Tensor] = []
    if options.get("everything"):
        biases = [
            1e-3 * g.double()
            for g in torch.autograd.grad(
                F.cross_entropy(model(X), Y), [layer.bias for layer in layers]
            )
        ]
    norm = math.sqrt(sum(float(g.square().sum()) for g in [*whitened, *biases]))
    assert last.norm.dtype is torch.float32
    # each e a g is rounded twice in float32, and the root once
    assert last.norm.item() == pytest.approx(norm, rel=3 * 2.0**-24)
    d = sum(g.numel() for g in [*whitened, *biases])
    # four roundings in float32 of each term of v . g', whose sizes add up to |v| |g'| at most
    tolerance = 4 * 2.0**-24 * (1 + math.sqrt(3 * 0.25 * d)) * norm
    draw = {"seed": 3, "step": 0, "noise": est.noise}
    for i in range(n):
        # u . g', by which the sign s of the guide is the only thing left open
        dot = 0.0
        for number, g in enumerate([*whitened, *biases]):
            u = fk.noise(tuple(g.shape), "clipped", tensor=number, probe=i, **draw)
            dot += float((u.double() * g).sum())
        either = [math.sqrt(0.75) * s * norm + math.sqrt(0.25) * dot for s in (1, -1)]
        assert min(abs(last.predicted[i].item() - p) for p in either) <= tolerance
    assert last.predicted.dtype is torch.float64
    if biases:
        return  # codes of the weights are then perturbed by another N: checked with the others
    flips = {}
    for number, (layer, g) in enumerate(zip(layers, gs, strict=True)):
        codes = fk.quantize(layer.weight.detach(), layer.scale, layer.grid)
        perturbed = fk.perturb_quantize(
            layer.weight.detach(), g, layer.scale, layer.grid, "clipped", tensor=number, probes=n,
            gamma=0.25, norm=last.norm, form="codes",
            sides="plus" if "difference" in options else "both", **draw,
        )  # fmt: skip
        flips[f"{2 * number}.weight"] = int((perturbed != codes).sum())
    assert last.flips == flips
    assert sum(flips.values()) > 0


@modes
@scaled
def test_every_field_of_nspsa(options, scale):
    model = make()
    closure, est = Closure(model), NSPSA(model, probes=2, seed=3, **options)
    scaler = None if scale is None else torch.amp.GradScaler("cpu", init_scale=scale)
    assert est.last is None
    est.backward(closure, batch=(X, Y), scaler=scaler)
    last = est.last
    pairs = expected_losses(closure.returned, options, 2)
    assert last.loss.item() == closure.returned[0]
    assert last.losses.tolist() == pairs
    sides = 1 if options.get("difference") == "forward" else 2
    assert last.difference.tolist() == [(a - b) / sides for a, b in pairs]
    assert last.gamma == 1.0
    assert isinstance(last.norm, float)
    assert math.isnan(last.norm)
    assert last.predicted.isnan().tolist() == [True, True]
    assert last.ratio.isnan().tolist() == [True, True]
    assert list(last.flips) == ["0.weight", "2.weight"]
    assert all(type(n) is int and n > 0 for n in last.flips.values())
    assert last.fallbacks == 0
    backward = 0 if options.get("everything") else 2
    assert last.forwards == len(closure.returned) + backward


@pytest.mark.parametrize("start", [False, True])
def test_a_plain_step_has_no_probes(start):
    model = make()
    est = FOGZO(model, probes=2, start=1) if start else STE(model)
    closure = Closure(model)
    assert est.last is None
    est.backward(closure, batch=(X, Y))
    last = est.last
    assert last.loss.item() == closure.returned[0]
    assert last.losses.shape == (0, 2)
    for name in ("difference", "predicted", "ratio", "resolution"):
        values = getattr(last, name)
        assert (values.shape, values.dtype) == ((0,), torch.float64), name
    assert math.isnan(last.norm)
    assert (last.gamma, last.flips, last.fallbacks, last.forwards) == (0.0, {}, 0, 3)
    assert last.float_probes == []


def test_flips_of_everything_name_quantized_weights_alone():
    model = make()
    est = FOGZO(model, gamma=0.25, everything=True)
    est.backward(Closure(model), batch=(X, Y))
    assert list(est.last.flips) == ["0.weight", "2.weight"]
    (names, counts), *rest = est.last.flip_counts()
    assert (names, counts.tolist(), rest) == (list(est.last.flips), [*est.last.flips.values()], [])


def test_a_frozen_weight_has_no_flips():
    model = make()
    model[0].weight.requires_grad_(False)
    est = FOGZO(model, gamma=0.25)
    est.backward(Closure(model), batch=(X, Y))
    assert list(est.last.flips) == ["2.weight"]


def test_ratio_is_nan_where_nothing_is_predicted():
    model = make()
    est = FOGZO(model, gamma=0.0)
    est.backward(lambda: F.cross_entropy(model(X), Y) * 0)
    assert est.last.norm == 0
    assert est.last.predicted.tolist() == [0.0]
    assert est.last.ratio.isnan().tolist() == [True]
    assert est.last.resolution.isnan().tolist() == [True]


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64])
def test_resolution_counts_roundings_of_the_losses_dtype(dtype):
    model, values = make(), iter((1.0, 1.5, -2.0))
    est = FOGZO(model)
    est.backward(lambda: (model(X).sum() * 0).to(dtype) + next(values))
    assert est.last.resolution.tolist() == [3.5 / (2 * torch.finfo(dtype).eps)]


def test_each_call_has_figures_of_its_own():
    model = make()
    est, closure = FOGZO(model, gamma=0.25), Closure(model)
    est.backward(closure, batch=(X, Y))
    first, losses = est.last, est.last.losses.clone()
    est.backward(closure, batch=(X[:6], Y[:6]))
    assert est.last is not first
    assert torch.equal(first.losses, losses)
    assert not torch.equal(est.last.losses, losses)


@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("kind", [FOGZO, NSPSA])
def test_a_loss_not_finite_in_the_second_call_falls_back_or_raises(kind, value):
    """The first probe's plus side: counted, warned of once, and refused where that is asked for."""
    model, count = make(), iter(range(99))

    def closure() -> Tensor:
        return F.cross_entropy(model(X), Y) * (value if next(count) == 1 else 1)

    est = kind(model)
    with pytest.warns(UserWarning, match="a probe's loss was not finite in 1 steps so far"):
        est.backward(closure)
    wanted = plain_gradients(model) if kind is FOGZO else [torch.zeros(6, 8), torch.zeros(4, 6)]
    assert torch.equal(model[0].weight.grad, wanted[0])
    assert torch.equal(model[2].weight.grad, wanted[1])
    assert est.last.fallbacks == 1
    assert not est.last.losses.isfinite().all()
    model.zero_grad()
    count = iter(range(99))
    with pytest.raises(FloatingPointError, match="for the probes, expected finite losses"):
        kind(model, on_nonfinite="raise").backward(closure)
    assert all(p.grad is None for p in model.parameters())
