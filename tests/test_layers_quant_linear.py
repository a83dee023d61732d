"""QuantLinear: its forward, its gradient, its state, and what it refuses."""

from __future__ import annotations

import copy
import pickle

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fogzo_kernels as fk
from fogzo import QuantConfig, QuantLinear

# every grid with each scale rule it takes
CONFIGS = [
    QuantConfig(bits=2),
    QuantConfig(grid="mid-tread", bits=4, scale="absmax", granularity="tensor"),
    QuantConfig(grid="mid-rise", bits=3, granularity="group", group_size=4),
    QuantConfig(grid="ternary", scale="absmean"),
    QuantConfig(grid="sign", scale="absmean", granularity="group", group_size=2),
    QuantConfig(bits=2, surrogate="identity", scale_value=0.25),
]


def layer_of(config: QuantConfig, seed: int = 0) -> QuantLinear:
    torch.manual_seed(seed)
    return QuantLinear(8, 6, config=config)


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_forward_and_gradient_are_those_of_the_operations(config):
    layer = layer_of(config)
    x = torch.randn(5, 8)
    scale = fk.compute_scale(
        layer.weight, layer.grid, config.scale, config.granularity, config.group_size
    )
    if config.scale_value is not None:
        scale = torch.full_like(scale, config.scale_value)
    expected = fk.fake_quantize(layer.weight.detach(), scale, layer.grid)
    assert torch.equal(layer.scale, scale)
    assert torch.equal(layer.quantized_weight(), expected)
    y = layer(x)
    assert torch.equal(y, F.linear(x, expected, layer.bias))
    y.square().sum().backward()
    plain = expected.clone().requires_grad_()
    F.linear(x, plain, layer.bias).square().sum().backward()
    with fk.use_backend("reference"):
        grad_w, _ = fk.fake_quantize_backward(
            plain.grad, layer.weight.detach(), scale, layer.grid, layer.surrogate
        )
    assert torch.equal(layer.weight.grad, grad_w)


@pytest.mark.parametrize("rule", ["absmean", "absmax"])
def test_a_dynamic_scale_follows_the_weight(rule):
    layer = layer_of(QuantConfig(grid="ternary", scale=rule))
    x = torch.randn(3, 8)
    first = layer.scale.clone()
    # two forwards before one backward: the buffer is written, what autograd kept is not
    loss = layer(x).sum() + layer(2 * x).sum()
    loss.backward()
    with torch.no_grad():
        layer.weight.mul_(2)
    assert torch.equal(layer.scale, first)
    layer(x)
    assert torch.equal(layer.scale, 2 * first) if rule == "absmean" else (layer.scale > first).all()


def test_state_dict_has_the_keys_of_linear_and_scale():
    layer = layer_of(QuantConfig())
    assert list(layer.state_dict()) == ["weight", "bias", "scale"]
    other = layer_of(QuantConfig(), seed=1)
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other.quantized_weight(), layer.quantized_weight())


def test_a_plain_state_dict_loads_and_makes_the_scale():
    linear = nn.Linear(8, 6)
    layer = layer_of(QuantConfig())
    missing = layer.load_state_dict(linear.state_dict(), strict=False)
    assert missing.missing_keys == ["scale"]
    assert torch.equal(layer.scale, QuantLinear.from_linear(linear).scale)
    with pytest.raises(RuntimeError, match="scale"):
        layer.load_state_dict(linear.state_dict())


def test_from_linear_and_to_linear_share_the_parameters():
    linear = nn.Linear(8, 6).eval()
    calls = []
    linear.register_forward_hook(lambda *args: calls.append(1))
    layer = QuantLinear.from_linear(linear)
    assert type(linear) is nn.Linear
    assert "scale" not in linear.state_dict()
    assert layer.weight is linear.weight
    assert layer.bias is linear.bias
    assert not layer.training
    layer(torch.zeros(1, 8))
    assert calls == [1]
    back = layer.to_linear()
    assert type(back) is nn.Linear
    assert back.weight is layer.weight
    assert list(back.state_dict()) == ["weight", "bias"]
    frozen = layer.to_linear(quantized=True)
    x = torch.randn(2, 8)
    assert torch.equal(frozen(x), layer(x))
    assert frozen.weight.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize("again", [copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m))])
def test_a_copy_computes_the_same(again):
    layer = layer_of(QuantConfig())
    other = again(layer)
    x = torch.randn(2, 8)
    assert torch.equal(other(x), layer(x))
    assert other.weight is not layer.weight


def test_autocast_casts_as_for_a_linear():
    layer = layer_of(QuantConfig())
    x = torch.randn(4, 8)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
        expected = F.linear(x, layer.quantized_weight(), layer.bias)
    assert y.dtype is torch.bfloat16
    assert torch.equal(y, expected)
    y.float().sum().backward()
    assert layer.weight.grad.dtype is torch.float32


def test_repr_names_what_is_quantized():
    text = repr(layer_of(QuantConfig(granularity="group", group_size=4)))
    assert "in_features=8, out_features=6, bias=True, grid=mid-rise, bits=2" in text
    assert "scale=fixed per group of 4, surrogate=clipped" in text


def test_half_precision_weights_are_refused():
    layer = layer_of(QuantConfig()).half()
    expected = "weight has dtype float16, expected float32: call model.float() and use autocast"
    with pytest.raises(TypeError, match="expected float32") as error:
        layer(torch.zeros(1, 8))
    assert str(error.value) == f"QuantLinear: {expected}"
    with pytest.raises(TypeError, match="bfloat16"):
        QuantLinear.from_linear(nn.Linear(8, 6, dtype=torch.bfloat16))


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"grid": "mid"}, "Grid: kind is 'mid', expected one of"),
        ({"bits": 9}, "Grid: bits is 9, expected an int in 2..8"),
        ({"grid": "sign", "bits": 4}, "QuantConfig: bits is 4 for grid 'sign', expected None"),
        ({"scale": "quest", "granularity": "tensor"}, "is 'tensor' for scale 'quest', expected"),
        ({"scale": "lsq", "scale_value": 1.0}, "scale_value is 1.0 for scale 'lsq', expected"),
        ({"scale": "stretched", "grid": "sign"}, "is 'stretched' for grid 'sign', expected grid"),
        ({"scale": "stretched", "bits": 8}, "'stretched' for grid 'mid-rise' of 8 bits, expected"),
        (
            {"scale": "stretched", "surrogate": "identity"},
            "surrogate is 'identity' for scale 'stretched', expected None or 'clipped'",
        ),
        ({"surrogate": "trust"}, "surrogate is 'trust' for scale 'fixed', expected scale 'quest'"),
        (
            {"scale": "max"},
            "scale is 'max', expected one of fixed, absmean, absmax, lsq, quest, stretched",
        ),
        ({"scale": "absmean"}, "scale is 'absmean' for grid 'mid-rise', expected grid sign or"),
        ({"granularity": "row"}, "granularity is 'row', expected one of tensor, channel, group"),
        ({"group_size": 4}, "group_size is 4 for granularity 'channel', expected None"),
        ({"granularity": "group"}, "group_size is None for granularity 'group', expected an int"),
        ({"granularity": "group", "group_size": 0}, "group_size is 0, expected an int >= 1"),
        ({"act_bits": 3}, "QuantConfig: act_bits is 3, expected None, 8, 4, 2 or 1"),
        ({"act_bits": True}, "QuantConfig: act_bits is True, expected None, 8, 4, 2 or 1"),
        ({"act_bits": "int8"}, "QuantConfig: act_bits is 'int8', expected None, 8, 4, 2 or 1"),
        ({"scale_value": 0.0}, "scale_value is 0.0, expected a number from 2\\^-100 to 2\\^100"),
        ({"scale_value": float("nan")}, "scale_value is nan, expected a number from"),
        ({"scale_value": 1e39}, "scale_value is 1e\\+39, expected a number from"),
        (
            {"scale": "absmax", "scale_value": 1.0},
            "scale_value is 1.0 for scale 'absmax', expected",
        ),
        ({"surrogate": "hardtanh"}, "QuantConfig: surrogate is 'hardtanh', expected one of"),
        ({"grid": "sign", "surrogate": "clipped"}, "surrogate is 'clipped', expected one of"),
        ({"surrogate": "ste"}, "QuantConfig: surrogate is 'ste', expected one of identity"),
    ],
)
def test_config_refuses(options, text):
    with pytest.raises(ValueError, match=text):
        QuantConfig(**options)


def test_a_group_that_does_not_divide_is_refused():
    with pytest.raises(ValueError, match="group_size is 3, which does not divide the 8 inputs"):
        QuantLinear(8, 6, config=QuantConfig(granularity="group", group_size=3))


def test_a_config_of_another_type_is_refused():
    with pytest.raises(TypeError, match="QuantLinear: config is a int, expected a QuantConfig"):
        QuantLinear(4, 2, config=3)
    text = "QuantLinear.from_linear: config is a dict, expected a QuantConfig"
    with pytest.raises(TypeError, match=text):
        QuantLinear.from_linear(nn.Linear(4, 2), {})
