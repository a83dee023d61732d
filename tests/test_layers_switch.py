"""Quantization switched off and on: the float model, its state, and what estimators do then."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from test_layers_training import IDS, LABELS, Net, net
from torch import nn

import fogzo
from fogzo import QuantConfig

RULES = ["fixed", "lsq", "quest", "stretched"]


def loss_of(model: nn.Module) -> torch.Tensor:
    return F.cross_entropy(model(IDS), LABELS)


@pytest.mark.parametrize("rule", RULES)
def test_a_disabled_model_is_the_float_one(rule):
    model = net(QuantConfig(bits=2, scale=rule, act_bits=8))
    torch.manual_seed(0)
    plain = Net()
    assert fogzo.disable_quantization(model) is model
    assert torch.equal(model(IDS), plain(IDS))
    assert "disabled)" in repr(model.head)
    assert fogzo.summary(model).rows[0].grid == "mid-rise, 2 bits, disabled"
    loss_of(model).backward()
    loss_of(plain).backward()
    for name, parameter in plain.named_parameters():
        assert torch.equal(model.get_parameter(name).grad, parameter.grad)
    assert torch.equal(
        model.head.quantized_weight(), model.head.probe_space(plain.head.weight).detach()
    )
    fogzo.enable_quantization(model)
    assert not torch.equal(model(IDS), plain(IDS))


@pytest.mark.parametrize("make", [fogzo.STE, fogzo.FOGZO, fogzo.NSPSA])
@pytest.mark.parametrize("options", [{}, {"probe_dtype": "int8", "difference": "forward"}])
def test_estimators_back_propagate_plainly_while_it_is_off(make, options):
    model = net(QuantConfig(bits=2, scale="lsq"))
    if make is fogzo.STE:
        options = {}
    est = make(model, **options)
    twin = copy.deepcopy(model)
    fogzo.disable_quantization(model)
    fogzo.disable_quantization(twin)
    loss_of(twin).backward()
    est.backward(lambda: loss_of(model))
    for name, parameter in twin.named_parameters():
        got = model.get_parameter(name).grad
        assert (got is None) if parameter.grad is None else torch.equal(got, parameter.grad)
    assert est.last.gamma == 0
    assert est.last.difference.numel() == 0
    assert est.last.forwards == 3
    fogzo.enable_quantization(model)
    est.backward(lambda: loss_of(model))
    if make is not fogzo.STE:
        assert est.last.difference.numel() == 1


@pytest.mark.parametrize("make", [fogzo.FOGZO, fogzo.NSPSA])
@pytest.mark.parametrize("dtype", [None, "int8"])
def test_of_a_model_partly_off_only_the_rest_is_probed(make, dtype):
    model = net(QuantConfig(bits=2))
    est = make(model, probe_dtype=dtype)
    fogzo.disable_quantization(model.conv1d)
    est.backward(lambda: loss_of(model))
    assert sorted(est.last.flips) == ["conv2d.weight", "embedding.weight", "head.weight"]
    twin = copy.deepcopy(model)
    twin.zero_grad()
    loss_of(twin).backward()
    assert torch.equal(model.conv1d.weight.grad, twin.conv1d.weight.grad)


@pytest.mark.parametrize("make", [fogzo.FOGZO, fogzo.NSPSA])
@pytest.mark.parametrize("off", ["embedding", "head"])
def test_a_tied_weight_that_one_layer_uses_as_it_is_is_not_probed(make, off):
    """Probes would measure the quantized use alone, and G take the place of the whole gradient."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(9, 8), nn.Linear(8, 8), nn.Linear(8, 9, bias=False))
    model[2].weight = model[0].weight
    fogzo.quantize_(model, QuantConfig(bits=2))
    fogzo.disable_quantization(model[0] if off == "embedding" else model[2])
    assert fogzo.summary(model).rows[0].grid == "mid-rise, 2 bits, disabled"
    ids = torch.arange(9)
    plain = copy.deepcopy(model)
    F.cross_entropy(plain(ids), ids).backward()
    est = make(model)
    est.backward(lambda: F.cross_entropy(model(ids), ids))
    assert list(est.last.flips) == ["1.weight"]
    assert torch.equal(model[0].weight.grad, plain[0].weight.grad)
    assert not torch.equal(model[1].weight.grad, plain[1].weight.grad)


def test_the_state_remembers_it():
    off, on = (net(QuantConfig(bits=2)) for _ in range(2))
    fogzo.disable_quantization(off.head)
    state = off.state_dict()
    assert [key for key in state if "disabled" in key] == ["head.quantization_disabled"]
    on.load_state_dict(state)
    assert [m.enabled for m in (on.head, on.conv1d)] == [False, True]
    assert not copy.deepcopy(on).head.enabled
    on.load_state_dict(net(QuantConfig(bits=2)).state_dict())
    assert on.head.enabled
    fogzo.disable_quantization(on)
    on.load_state_dict(Net().state_dict(), strict=False)  # a float checkpoint does not say
    assert not on.head.enabled


@pytest.mark.parametrize("rule", ["fixed", "lsq", "stretched"])
def test_delayed_quantization_begins_with_the_weights_of_then(rule):
    model = net(QuantConfig(bits=2, scale=rule))
    before = model.head.scale.detach().clone()
    name = model.head.config.learned or "scale"
    same = getattr(model.head, name)
    fogzo.enable_quantization(model, rescale=True)  # nothing was off: nothing is computed anew
    assert torch.equal(model.head.scale, before)
    fogzo.disable_quantization(model)
    with torch.no_grad():
        for parameter in (model.head.weight, model.conv1d.weight):
            parameter.mul_(2)
    fogzo.enable_quantization(model)
    assert torch.equal(model.head.scale, before)
    fogzo.disable_quantization(model)
    fogzo.enable_quantization(model, rescale=True)
    assert torch.equal(model.head.scale, 2 * before)
    assert getattr(model.head, name) is same


def test_a_model_without_quantized_layers_is_refused():
    for call in (fogzo.disable_quantization, fogzo.enable_quantization):
        with pytest.raises(ValueError, match=f"{call.__name__}: model has no quantized layer"):
            call(Net())
        with pytest.raises(TypeError, match=f"{call.__name__}: model is a int, expected a torch"):
            call(3)
