"""What backward() leaves in .grad: equal to a plain loop over the reference operations."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from helpers import multiply
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, STE, QuantConfig

X, Y = torch.randn(16, 8, generator=torch.Generator().manual_seed(1)), torch.arange(16) % 4


def make(config: QuantConfig | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 6), nn.Tanh(), nn.Linear(6, 4))
    fogzo.quantize_(model, config, lambda module, name: name != "4")
    return model


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def plain_gradients(model: nn.Module) -> list[Tensor]:
    return list(torch.autograd.grad(loss_of(model), list(model.parameters())))


def loss_with(model: nn.Sequential, weights: list[Tensor]) -> float:
    """The loss with these values for the two quantized weights, written out."""
    h = torch.tanh(multiply(X, weights[0], model[0]))
    h = torch.tanh(multiply(h, weights[1], model[2]))
    return F.cross_entropy(F.linear(h, model[4].weight, model[4].bias), Y).item()


def by_hand(model, est, *, n, gamma, seed, noise, guided=True):
    """Losses and G of the two quantized weights, tensor by tensor on the reference backend.

    The STE's gradient is an input to the bit-for-bit promise, as the slope of tanh equals the
    reference's within a tolerance only, and so is N: the estimator's own, checked to one rounding.
    """
    layers = [model[0], model[2]]
    gradients = plain_gradients_of_weights(model)
    with fk.use_backend("reference"), torch.no_grad():
        scales = [layer.scale for layer in layers]
        names = [layer.surrogate for layer in layers]
        gs, norm = [layer.weight for layer in layers], 0.0
        if guided:
            gs, norm = gradients, est.last.norm
            expected = fk.whitened_norm(gs, scales, names, noise=noise)
            assert abs(norm - expected) <= expected * 2**-23
        shared = {"seed": seed, "step": 0, "gamma": gamma, "norm": norm, "noise": noise}
        sides = [
            fk.perturb_quantize(layer.weight, g, a, layer.grid, name, tensor=i, probes=n, **shared)
            for i, (layer, g, a, name) in enumerate(zip(layers, gs, scales, names, strict=True))
        ]
    with torch.no_grad():
        losses = [
            [loss_with(model, [s[2 * i + side] for s in sides]) for side in (0, 1)]
            for i in range(n)
        ]
    with fk.use_backend("reference"), torch.no_grad():
        differences = torch.tensor([(a - b) / 2 for a, b in losses], dtype=torch.float64)
        estimate = [
            fk.assemble_gradient(g, a, differences, name, tensor=i, **shared)
            for i, (g, a, name) in enumerate(zip(gs, scales, names, strict=True))
        ]
    return losses, estimate


def plain_gradients_of_weights(model: nn.Sequential) -> list[Tensor]:
    with torch.enable_grad():
        weights = [model[0].weight, model[2].weight]
        return list(torch.autograd.grad(loss_of(model), weights))


CASES = [
    (QuantConfig(bits=2), 1, 1e-3, "published"),
    (QuantConfig(bits=2, surrogate="identity"), 3, 0.3, "published"),
    (
        QuantConfig(grid="mid-tread", bits=3, scale="absmax", granularity="tensor"),
        2,
        1.0,
        "rademacher",
    ),
    (QuantConfig(granularity="group", group_size=2), 2, 0.5, "published"),
    (QuantConfig(grid="sign", scale="absmean"), 2, 0.1, "rademacher"),
    (QuantConfig(grid="sign", surrogate="tanh"), 1, 0.1, "published"),
]


@pytest.mark.parametrize("kernels", ["auto", "reference"])
@pytest.mark.parametrize(("config", "n", "gamma", "noise"), CASES, ids=str)
def test_fogzo_equals_the_loop_by_hand(config, n, gamma, noise, kernels):
    with fk.use_backend(kernels):
        check_against_the_loop_by_hand(config, n, gamma, noise)


def check_against_the_loop_by_hand(config, n, gamma, noise):
    model = make(config)
    plain = plain_gradients(model)
    est = FOGZO(model, probes=n, gamma=gamma, seed=7, noise=noise)
    loss = est.backward(lambda: loss_of(model))
    losses, estimate = by_hand(model, est, n=n, gamma=gamma, seed=7, noise=noise)
    assert loss.item() == loss_of(model).item()
    assert est.last.losses.tolist() == losses
    assert torch.equal(model[0].weight.grad, estimate[0])
    assert torch.equal(model[2].weight.grad, estimate[1])
    others = {0: model[0].bias, 1: model[2].bias, 2: model[4].weight, 3: model[4].bias}
    for parameter, g in zip(others.values(), (plain[1], plain[3], plain[4], plain[5]), strict=True):
        assert torch.equal(parameter.grad, g)


def test_nspsa_equals_the_loop_by_hand():
    model = make(QuantConfig(bits=2))
    plain = plain_gradients(model)
    est = NSPSA(model, probes=4, seed=3)
    est.backward(lambda: loss_of(model))
    losses, estimate = by_hand(model, est, n=4, gamma=1.0, seed=3, noise="published", guided=False)
    assert est.last.losses.tolist() == losses
    assert torch.equal(model[0].weight.grad, estimate[0])
    assert torch.equal(model[2].weight.grad, estimate[1])
    assert torch.equal(model[4].weight.grad, plain[4])
    assert est.last.predicted.isnan().all()
    assert est.last.forwards == 3 + 2 * 4


def test_nspsa_runs_no_backward_pass_where_all_is_perturbed():
    model = make()
    recorded = []

    def closure() -> Tensor:
        recorded.append(torch.is_grad_enabled())
        return loss_of(model)

    est = NSPSA(model, everything=True)
    est.backward(closure)
    assert recorded == [False] * 3
    assert est.last.forwards == 3
    assert all(p.grad is not None for p in model.parameters())


def test_gamma_one_is_nspsa():
    guided, free = make(), make()
    FOGZO(guided, gamma=1.0, seed=5).backward(lambda: loss_of(guided))
    NSPSA(free, seed=5).backward(lambda: loss_of(free))
    assert torch.equal(guided[0].weight.grad, free[0].weight.grad)


def test_predicted_is_the_slope_that_the_guide_promises():
    model = make(QuantConfig(bits=2, granularity="group", group_size=2))
    guides = plain_gradients_of_weights(model)
    gamma = 0.25
    est = FOGZO(model, probes=3, gamma=gamma, seed=11)
    est.backward(lambda: loss_of(model))
    e = fk.radius("clipped")
    norm = est.last.norm.item()
    along = []
    for probe in range(3):
        total = 0.0
        for number, (layer, g) in enumerate(zip((model[0], model[2]), guides, strict=True)):
            u = fk.noise(g.shape, "clipped", seed=11, step=0, tensor=number, probe=probe).double()
            scale = layer.scale.expand(-1, -1, 2).reshape(g.shape).double()
            total += (u * e * scale * g).sum().item()
        along.append(total)
    # s_i = +-1 is what is left when the noise's share is taken away
    signs = [
        (p - math.sqrt(gamma) * u) / (math.sqrt(1 - gamma) * norm)
        for p, u in zip(est.last.predicted.tolist(), along, strict=True)
    ]
    # float32 directions of 84 terms: relative error under 84 * 2^-23 = 1e-5
    assert all(abs(abs(s) - 1) < 1e-5 for s in signs)
    assert torch.equal(est.last.ratio, est.last.difference / est.last.predicted)


def test_gamma_zero_points_along_the_guide():
    model = make(QuantConfig(bits=2))
    guides = plain_gradients_of_weights(model)
    FOGZO(model, gamma=0.0).backward(lambda: loss_of(model))
    for layer, g in zip((model[0], model[2]), guides, strict=True):
        unit = (layer.weight.grad / g).abs()[g.abs() > 1e-6]
        # G = D s g / N: one factor for every element of every layer, float32 rounding apart
        assert (unit / unit.median() - 1).abs().max() < 1e-5


def test_gradients_accumulate_and_the_guide_is_this_calls_own():
    once, twice = make(), make()
    est = FOGZO(once, gamma=0.1)
    est.backward(lambda: loss_of(once))
    first = [p.grad.clone() for p in once.parameters()]
    once.zero_grad()
    est.backward(lambda: loss_of(once))
    second = [p.grad for p in once.parameters()]

    est = FOGZO(twice, gamma=0.1)
    est.backward(lambda: loss_of(twice))
    kept = [p.grad for p in twice.parameters()]
    est.backward(lambda: loss_of(twice))
    for p, tensor, a, b in zip(twice.parameters(), kept, first, second, strict=True):
        assert p.grad is tensor
        assert torch.equal(p.grad, a + b)
    assert not torch.equal(first[0], second[0])  # another step, other noise


def test_ste_is_plain_back_propagation():
    model = make()
    plain = plain_gradients(model)
    est = STE(model)
    loss = est.backward(lambda: loss_of(model))
    assert not loss.requires_grad
    assert all(torch.equal(p.grad, g) for p, g in zip(model.parameters(), plain, strict=True))
    assert (est.last.forwards, est.forwards) == (3, 3)
    assert est.last.losses.shape == (0, 2)
    est.backward(lambda: loss_of(model))
    assert torch.equal(model[0].weight.grad, 2 * plain[0])


def test_batch_is_handed_to_the_closure():
    model, seen = make(), []

    def closure(batch: dict[str, Tensor]) -> Tensor:
        seen.append(batch)
        return F.cross_entropy(model(batch["x"]), batch["y"])

    batch = {"x": X, "y": Y}
    loss = FOGZO(model).backward(closure, batch)
    assert len(seen) == 3
    assert all(b is batch for b in seen)
    assert loss == loss_of(model)


class Scaler(torch.amp.GradScaler):
    def __init__(self) -> None:
        super().__init__("cpu", init_scale=1024.0)


@pytest.mark.parametrize("kind", [STE, FOGZO, NSPSA])
def test_a_scaler_changes_nothing_but_the_scale_of_the_gradients(kind):
    plain, scaled = make(), make()
    kind(plain).backward(lambda: loss_of(plain))
    est, scaler = kind(scaled), Scaler()
    est.backward(lambda: loss_of(scaled), scaler=scaler)
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(1024 * p.grad, q.grad)  # a power of two: exact
    if kind is FOGZO:
        assert est.last.norm < 10
    optimizer = torch.optim.SGD(scaled.parameters(), lr=0.1)
    scaler.unscale_(optimizer)
    for p, q in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(p.grad, q.grad)


def test_an_overflowed_guide_gives_an_overflowed_gradient():
    model = make()
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**127)

    def closure() -> Tensor:
        return 1e6 * loss_of(model)

    FOGZO(model).backward(closure, scaler=scaler)
    grad = model[0].weight.grad
    assert not grad.isfinite().all()


def test_differences_of_half_precision_losses_are_taken_in_float64():
    model = make()
    probe_losses = [torch.tensor(1024.0).half(), torch.tensor(2.0**-10).half()]

    def closure() -> Tensor:
        return loss_of(model).half() if torch.is_grad_enabled() else probe_losses.pop(0)

    est = FOGZO(model)
    est.backward(closure)
    assert est.last.difference.tolist() == [(1024 - 2.0**-10) / 2]  # in float16: 512


def test_everything_perturbs_float_parameters_and_writes_none():
    model = make()
    seen = []

    def closure() -> Tensor:
        seen.append(model[4].bias.detach().clone())
        return loss_of(model)

    before = [p.detach().clone() for p in model.parameters()]
    objects = list(model.parameters())
    est = FOGZO(model, everything=True, gamma=0.5)
    est.backward(closure)
    assert all(a is b for a, b in zip(model.parameters(), objects, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), before, strict=True))
    base, plus, minus = seen
    assert torch.equal(base, before[-1])
    # +- 1e-3 v, rounded at float32 values near 0.4: 2^-25 each
    torch.testing.assert_close(plus - base, base - minus, rtol=0, atol=2.0**-24)
    assert 0 < (plus - base).abs().max() < 1e-2
    assert list(est.last.flips) == ["0.weight", "2.weight"]


def test_predicted_is_of_the_step_when_it_is_read_after_another_forward():
    config = QuantConfig(bits=2, scale="absmax")
    predicted = []
    for read_late in (False, True):
        model = make(config)
        est = FOGZO(model, seed=3, gamma=0.1)
        est.backward(lambda model=model: loss_of(model))
        if read_late:
            torch.optim.SGD(model.parameters(), lr=1.0).step()
            loss_of(model)  # refreshes the scales
        predicted.append(est.last.predicted)
    assert torch.equal(predicted[0], predicted[1])


def test_positional_arguments_are_in_the_published_order():
    assert FOGZO(make(), 1, "auto", None, 7).seed == 7
    config = QuantConfig("mid-rise", 2, "fixed", "channel", "identity")
    assert config.surrogate == "identity"


@pytest.mark.parametrize("set_to_none", [True, False])
def test_zero_grad_in_a_probe_is_refused_and_gradients_stay(set_to_none):
    model = make()
    est, calls = FOGZO(model), []

    def closure() -> Tensor:
        calls.append(1)
        if len(calls) == 2:
            model.zero_grad(set_to_none=set_to_none)
        return loss_of(model)

    model[4].bias.grad = kept = torch.ones_like(model[4].bias)
    with pytest.raises(RuntimeError, match=r"called zero_grad\(\) or backward\(\) in a probe"):
        est.backward(closure)
    assert model[4].bias.grad is kept
    assert torch.equal(kept, torch.ones_like(kept))
    assert all(p.grad is None for p in model.parameters() if p is not model[4].bias)
