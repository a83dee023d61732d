"""FOGZO and n-SPSA on every kind of layer: G by hand, in the space where the weight's grid lies."""

from __future__ import annotations

import copy
import re

import pytest
import torch
import torch.nn.functional as F
from helpers import multiply
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import QuantConfig

IDS = torch.tensor([[0, 3, 3], [9, 1, 3]])
DRAW = {"seed": 5, "step": 0, "tensor": 0}
RULES = [
    QuantConfig(bits=2),
    QuantConfig(bits=2, scale="lsq"),
    QuantConfig(bits=3, scale="quest"),
    QuantConfig(grid="ternary", scale="stretched"),
    QuantConfig(bits=2, scale="quest", surrogate="identity"),
]


def layer_of(kind: str, config: QuantConfig) -> nn.Module:
    torch.manual_seed(0)
    layer = {
        "linear": lambda: nn.Linear(24, 6),
        "conv1d": lambda: nn.Conv1d(4, 6, 3, padding=1),
        "conv2d": lambda: nn.Conv2d(4, 6, (3, 2), stride=2, groups=2),
        "embedding": lambda: nn.Embedding(10, 6),
    }[kind]()
    return fogzo.quantize_(layer, config)


def inputs(kind: str) -> Tensor:
    shape = {"linear": (5, 24), "conv1d": (2, 4, 7), "conv2d": (2, 4, 7, 6)}.get(kind)
    return IDS if shape is None else torch.randn(shape, generator=torch.Generator().manual_seed(1))


def output(layer: nn.Module, x: Tensor, values: Tensor) -> Tensor:
    """What the layer gives for values [N, K] in place of its Q(W), from torch's functions."""
    quest = layer.config.rotated
    if isinstance(layer, fogzo.QuantEmbedding):
        rows = values[x]
        return fk.hadamard(rows) if quest else rows
    if isinstance(layer, fogzo.QuantLinear):
        return multiply(fk.hadamard(x) if quest else x, values, layer)
    if not quest:
        return layer._conv_forward(x, values.view(layer.weight.shape), layer.bias)
    shape = layer.weight.shape
    twin = copy.deepcopy(layer.to_conv())
    twin.weight.copy_(fk.hadamard(values).view(shape))  # back: the rotation of the patches is equal
    return twin(x)


def loss_of(y: Tensor) -> Tensor:
    return (y - 0.3).square().mean()


@pytest.mark.parametrize("config", RULES, ids=lambda c: f"{c.scale}-{c.surrogate}")
@pytest.mark.parametrize("kind", ["linear", "conv1d", "conv2d", "embedding"])
def test_g_is_assembled_where_the_grid_lies_and_brought_back(kind, config):
    layer, x = layer_of(kind, config), inputs(kind)
    quest, shape = config.rotated, layer.weight.shape

    def turn(rows: Tensor) -> Tensor:
        return fk.hadamard(rows) if quest else rows

    twin = copy.deepcopy(layer)
    loss_of(twin(x)).backward()
    est = fogzo.FOGZO(layer, probes=2, gamma=0.1, seed=5)
    est.backward(lambda: loss_of(layer(x)))
    with torch.no_grad():
        w, g = (turn(t.flatten(1)) for t in (layer.weight, twin.weight.grad))
        rest = layer.frozen_scale(), layer.grid, layer.surrogate
        norm = fk.whitened_norm([g], [rest[0]], rest[2])
        guide = {"gamma": 0.1, "norm": norm, **DRAW}
        sides = fk.perturb_quantize(w, g, *rest, probes=2, **guide)
        losses = torch.stack([loss_of(output(layer, x, side)) for side in sides]).double()
        exact = not (quest and kind.startswith("conv"))
        if exact:
            assert torch.equal(est.last.losses, losses.view(2, 2))
        else:  # `output` rotates the weight where the layer rotates patches
            torch.testing.assert_close(est.last.losses, losses.view(2, 2), rtol=2e-6, atol=0)
        differences = est.last.difference.float()
        rows = fk.assemble_gradient(g, rest[0], differences, rest[2], **guide)
    assert torch.equal(layer.weight.grad, turn(rows).view(shape))
    assert est.last.flips["weight"] > 0
    # everything else keeps what back-propagation gives it
    for name, parameter in twin.named_parameters():
        if name != "weight":
            assert torch.equal(layer.get_parameter(name).grad, parameter.grad)


@pytest.mark.parametrize("kind", ["linear", "conv2d", "embedding"])
def test_n_spsa_leaves_a_learned_scale_its_gradient(kind):
    layer, x = layer_of(kind, QuantConfig(bits=2, scale="lsq")), inputs(kind)
    twin = copy.deepcopy(layer)
    loss_of(twin(x)).backward()
    for everything in (False, True):
        layer.zero_grad()
        est = fogzo.NSPSA(layer, everything=everything)
        assert [t.name for t in est._targets] == (
            ["weight", *(["bias"] if hasattr(layer, "bias") else [])] if everything else ["weight"]
        )
        before = layer.scale.detach().clone()
        est.backward(lambda: loss_of(layer(x)))
        assert torch.equal(layer.scale.grad, twin.scale.grad)
        assert not torch.equal(layer.weight.grad, twin.weight.grad)
        assert torch.equal(layer.scale, before)


@pytest.mark.parametrize("dtype", [None, "int8"])
@pytest.mark.parametrize("difference", ["central", "forward"])
def test_cheaper_probes_of_a_net_of_all_kinds(dtype, difference):
    """The integers of int8 probes reach convolutions; an embedding has none."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Conv1d(3, 4, 3), nn.Linear(4, 3))
    fogzo.quantize_(model, QuantConfig(bits=2, scale="quest"))
    est = fogzo.FOGZO(model, gamma=0.1, probe_dtype=dtype, difference=difference)
    est.backward(lambda: loss_of(model(IDS)))
    assert est.last.difference.isfinite().all()
    whole = ["0.weight", "1.weight", "2.weight"]
    assert est.last.float_probes == (["0.weight"] if dtype else whole)


def test_int8_probes_of_a_convolution_are_its_products_of_integers():
    layer, x = layer_of("conv2d", QuantConfig(bits=2)), inputs("conv2d")
    integer = copy.deepcopy(layer)
    integer.config = QuantConfig(bits=2, act_bits=8)
    est = fogzo.NSPSA(layer, seed=5, probe_dtype="int8", difference="forward")
    est.backward(lambda: loss_of(layer(x)))
    with torch.no_grad():
        assert est.last.losses[0, 1] == loss_of(integer(x)).double()
        w = layer.weight.flatten(1)
        rest = layer.scale, layer.grid, layer.surrogate
        side = fk.perturb_quantize(
            w, w, *rest, gamma=1.0, norm=0.0, sides="plus", form="codes", **DRAW
        )[0]
        integer.weight.copy_(fk.dequantize(side, *rest[:2]).view(layer.weight.shape))
        assert est.last.losses[0, 0] == loss_of(integer(x)).double()


def test_tied_layers_of_two_kinds_are_probed_together():
    torch.manual_seed(0)
    embedding, head = nn.Embedding(10, 6), nn.Linear(6, 10, bias=False)
    head.weight = embedding.weight
    model = fogzo.quantize_(nn.Sequential(embedding, head), QuantConfig(bits=2, act_bits=8))
    est = fogzo.FOGZO(model, gamma=0.1)
    assert [(t.name, len(t.layers)) for t in est._targets] == [("0.weight", 2)]

    def loss() -> Tensor:
        return F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten())

    est.backward(loss)
    assert est.last.flips["0.weight"] > 0
    assert est.last.float_probes == []
    assert fogzo.summary(model).quantized[0].inputs == "8 bits"


def tied_afterwards(config: QuantConfig, other: QuantConfig | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10, bias=False))
    fogzo.quantize_(model, config, overrides={"1": other or config})
    model[1].weight = model[0].weight
    return model


@pytest.mark.parametrize(
    ("config", "other", "which"),
    [
        (QuantConfig(bits=2), None, "has another scale"),
        (QuantConfig(bits=2, scale="lsq"), None, "has another scale"),
        (QuantConfig(bits=2, scale="stretched"), None, "has another scale"),
        (QuantConfig(bits=2), QuantConfig(bits=4), "has another config"),
        (QuantConfig(bits=2, scale_value=1.0), QuantConfig(bits=2), "has another config"),
    ],
)
@pytest.mark.parametrize("kind", [fogzo.STE, fogzo.NSPSA, fogzo.FOGZO])
def test_layers_that_make_two_weights_of_one_are_refused(kind, config, other, which):
    model = tied_afterwards(config, other)
    text = (
        f"{kind.__name__}: 0.weight is shared with 1.weight, which {which}, expected one Q(W) for "
        "one weight: tie layers before quantize_"
    )
    with pytest.raises(ValueError, match=re.escape(text)):
        kind(model)


def test_a_weight_that_something_uses_as_it_is_is_refused():
    model = fogzo.quantize_(nn.Sequential(nn.Linear(6, 6), nn.Linear(6, 6)), overrides={"1": None})
    model[1].weight = model[0].weight
    with pytest.raises(ValueError, match=r"FOGZO: 0\.weight is shared with 1\.weight, which stays"):
        fogzo.FOGZO(model)


@pytest.mark.parametrize("scale", ["fixed", "absmax", "lsq"])
def test_tied_layers_with_scales_of_equal_value_are_probed(scale):
    """Buffers apart, as ``model.to()`` leaves them; a rule that follows W; one learned scale."""
    model = tied_afterwards(QuantConfig(bits=2, scale=scale))
    if scale == "fixed":
        model[1].scale = model[0].scale.clone()
    elif scale == "lsq":
        model[1].scale = model[0].scale
    before = nn.Sequential(nn.Embedding(10, 6), nn.Linear(6, 10, bias=False))
    before[1].weight = before[0].weight
    before.load_state_dict({f"{i}.weight": model[i].weight for i in range(2)})
    fogzo.quantize_(before, model[0].config)
    for net in (model, before):
        est = fogzo.FOGZO(net, gamma=0.1)
        est.backward(lambda net=net: F.cross_entropy(net(IDS).flatten(0, 1), IDS.flatten()))
    assert torch.equal(model[0].weight.grad, before[0].weight.grad)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script.*deprecated")
@pytest.mark.parametrize("kind", [fogzo.FOGZO, fogzo.NSPSA])
def test_a_scripted_part_keeps_its_buffers_through_the_probes(kind):
    torch.manual_seed(0)
    part = torch.jit.script(nn.Sequential(nn.BatchNorm1d(8), nn.Linear(8, 8)))
    model = fogzo.quantize_(nn.Sequential(nn.Linear(8, 8), part, nn.Linear(8, 4)))
    x = torch.randn(12, 8)
    est = kind(model, probes=2)
    est.backward(lambda: model(x).square().mean())
    norm = model[1][0]
    assert norm.num_batches_tracked == 1
    with torch.no_grad():
        mean = model[0](x).mean(0)
    assert torch.allclose(norm.running_mean, 0.1 * mean, atol=1e-6)
    before = {name: buffer.clone() for name, buffer in model.named_buffers()}

    def closure() -> Tensor:
        loss = model(x).square().mean()
        if len(calls) == 2:  # in the second probe
            raise ValueError("mine")
        calls.append(1)
        return loss

    calls: list[int] = []
    with pytest.raises(ValueError, match="mine"):
        est.backward(closure)
    for name, buffer in model.named_buffers():
        assert torch.equal(buffer, before[name]), name
    quantized = [row.name for row in fogzo.summary(model).quantized]
    assert quantized == ["0.weight", "2.weight"]
