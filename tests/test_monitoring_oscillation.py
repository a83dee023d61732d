"""The oscillation rate against its definition, written out weight by weight."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

import fogzo
import fogzo_kernels as fk
from fogzo import STE, Oscillation


def make(scale: str = "fixed") -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(7, 5), nn.Linear(5, 3))
    return fogzo.quantize_(model, fogzo.QuantConfig(grid="mid-rise", bits=2, scale=scale))


def by_hand(history: list[np.ndarray], m: float) -> list[float]:
    """Every weight's own frequency f, then their mean, after each step."""
    f = np.zeros(history[0].size)
    last_change = np.zeros(history[0].size, int)
    means = [0.0]
    for before, now in itertools.pairwise(history):
        for i, (a, b) in enumerate(zip(before.flat, now.flat, strict=True)):
            change = int(np.sign(int(b) - int(a)))
            oscillated = change != 0 and last_change[i] != 0 and change != last_change[i]
            f[i] = m * oscillated + (1 - m) * f[i]
            last_change[i] = change or last_change[i]
        means.append(float(f.mean()))
    return means


@pytest.mark.parametrize("momentum", [0.01, 0.3, 1.0])
@pytest.mark.parametrize("scale", ["fixed", "absmax", "lsq", "quest"])
def test_it_is_the_mean_of_every_weights_frequency(momentum, scale):
    model = make(scale)
    rates, rng = Oscillation(STE(model), momentum), np.random.default_rng(3)
    layers, found = {"0.weight": model[0], "1.weight": model[1]}, []
    history: dict[str, list[np.ndarray]] = {name: [] for name in layers}
    for _ in range(40):
        for name, layer in layers.items():
            with torch.no_grad():
                layer.weight += torch.from_numpy(rng.normal(0, 0.2, layer.weight.shape)).float()
            layer.quantized_weight()  # a forward: dynamic scales follow
            rows = layer.weight.detach()
            rows = fk.hadamard(rows) if scale == "quest" else rows
            codes = fk.quantize(rows, layer.scale.detach(), layer.grid)
            history[name].append(codes.numpy().copy())
        found.append({name: rate.item() for name, rate in rates.see().items()})
    for name in layers:
        wanted = by_hand(history[name], momentum)
        assert max(wanted) > 0
        # float32: two roundings a step of numbers up to 1
        assert [f[name] for f in found] == pytest.approx(wanted, abs=2 * 40 * 2.0**-24)


def test_a_change_in_one_direction_is_none_and_back_after_a_rest_is_one():
    model = make()
    rates = Oscillation(STE(model), momentum=1.0)
    scale = model[0].scale[0].item()
    seen = []
    for x in (-1.5, -0.5, 0.5, 0.5, 0.5, -0.5, -0.5, 0.5):  # up, up, rest, down, rest, up
        with torch.no_grad():
            model[0].weight[0, 0] = x * scale
        seen.append(round(35 * rates.see()["0.weight"].item(), 4))
    assert seen == [0, 0, 0, 0, 0, 1, 0, 1]


def test_a_weight_that_is_switched_off_has_no_rate_and_begins_anew():
    model = make()
    rates = Oscillation(STE(model), momentum=1.0)
    scale = model[0].scale[0].item()
    for x in (-1.5, -0.5):
        with torch.no_grad():
            model[0].weight[0, 0] = x * scale
        assert list(rates.see()) == ["0.weight", "1.weight"]
    fogzo.disable_quantization(model[0])
    with torch.no_grad():
        model[0].weight[0, 0] = -1.5 * scale
    assert list(rates.see()) == ["1.weight"]
    fogzo.enable_quantization(model)
    assert rates.see()["0.weight"] == 0  # what it did in between is no oscillation


def test_it_changes_nothing_and_stays_on_its_device():
    model = make()
    before = {name: t.clone() for name, t in model.state_dict().items()}
    rates = Oscillation(STE(model)).see()
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [(r.shape, r.dtype, r.item()) for r in rates.values()] == [((), torch.float32, 0)] * 2


def test_something_else_than_an_estimator_is_refused():
    with pytest.raises(TypeError, match="Oscillation: est is a Sequential, expected fogzo.STE"):
        Oscillation(make())
