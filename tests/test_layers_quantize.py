"""quantize_ and summary: what becomes quantized, what stays float, and why."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn.utils import parametrize, prune
from torch.nn.utils.parametrizations import weight_norm

import fogzo
from fogzo import QuantConfig, QuantLinear


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4, bias=False))


def test_it_works_in_place_and_keeps_parameters_and_references():
    model = mlp()
    first, parameters = model[0], list(model.parameters())
    assert fogzo.quantize_(model, QuantConfig(bits=2)) is model
    assert model[0] is first
    assert isinstance(first, QuantLinear)
    assert all(a is b for a, b in zip(model.parameters(), parameters, strict=True))


def test_a_model_that_is_one_linear_is_quantized_in_place():
    linear = nn.Linear(4, 2)
    assert fogzo.quantize_(linear) is linear
    assert isinstance(linear, QuantLinear)


def test_the_filter_sees_module_and_name_and_a_second_call_gives_another_config():
    model, seen = mlp(), []

    def only_last(module: nn.Module, name: str) -> bool:
        seen.append((type(module), name))
        return name == "2"

    fogzo.quantize_(model, QuantConfig(bits=2), only_last)
    assert seen == [(nn.Linear, "0"), (nn.Linear, "2")]
    fogzo.quantize_(model, QuantConfig(bits=4))
    assert (model[0].grid.bits, model[2].grid.bits) == (4, 2)


def test_nothing_to_quantize_is_an_error():
    expected = (
        "model has nothing to quantize, expected at least one nn.Linear, nn.Conv1d, nn.Conv2d or"
    )
    with pytest.raises(ValueError, match=expected):
        fogzo.quantize_(nn.Sequential(nn.ReLU()))
    with pytest.raises(ValueError, match=expected):
        fogzo.quantize_(mlp(), filter_fn=lambda module, name: False)
    model = fogzo.quantize_(mlp())
    with pytest.raises(ValueError, match="what could be is quantized already"):
        fogzo.quantize_(model)


def test_half_precision_is_refused_by_name_before_any_change():
    model = mlp()
    model[2].half()
    text = "quantize_: 2.weight has dtype float16, expected float32: call model.float() and use"
    with pytest.raises(TypeError) as error:
        fogzo.quantize_(model)
    assert text in str(error.value)
    assert type(model[0]) is nn.Linear


def test_a_group_that_does_not_divide_one_layer_changes_none():
    model = mlp()
    with pytest.raises(ValueError, match="^quantize_: group_size is 4, which does not divide"):
        fogzo.quantize_(model, QuantConfig(granularity="group", group_size=4))
    assert type(model[0]) is nn.Linear


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_not_finite_is_refused_by_name_before_any_change(value):
    model = mlp()
    with torch.no_grad():
        model[2].weight[1, 3] = value
    with pytest.raises(ValueError, match=r"^quantize_: 2\.weight has values that are not finite"):
        fogzo.quantize_(model)
    assert type(model[0]) is nn.Linear


def test_what_is_no_model_or_no_filter_is_refused():
    for call in (fogzo.quantize_, fogzo.summary):
        text = f"^{call.__name__}: model is a str, expected a torch.nn.Module$"
        with pytest.raises(TypeError, match=text):
            call("x")
    text = "^quantize_: filter_fn is 3, expected a function of a module and its name$"
    with pytest.raises(TypeError, match=text):
        fogzo.quantize_(mlp(), filter_fn=3)


def test_config_must_be_a_config():
    with pytest.raises(TypeError, match="quantize_: config is a dict, expected a QuantConfig"):
        fogzo.quantize_(mlp(), {"bits": 2})


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(5, 4)
        self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
        self.second.weight = self.first.weight
        self.head = nn.Linear(4, 5, bias=False)
        self.head.weight = self.embedding.weight


def test_tied_layers_stay_tied_and_get_one_scale():
    model = fogzo.quantize_(Tied())
    assert model.first.weight is model.second.weight
    assert model.first.scale is model.second.scale
    names = [row.name for row in fogzo.summary(model).quantized]
    assert names == ["embedding.weight", "first.weight"]


def test_an_embedding_and_its_tied_head_share_one_latent_and_one_scale():
    model = fogzo.quantize_(Tied(), QuantConfig(bits=2, scale="lsq"))
    assert isinstance(model.embedding, fogzo.QuantEmbedding)
    assert model.head.weight is model.embedding.weight
    assert model.head.scale is model.embedding.scale
    assert [row.name for row in fogzo.summary(model).quantized] == [
        "embedding.weight",
        "first.weight",
    ]


def test_a_weight_that_an_embedding_holds_too_stays_float_with_it():
    model = fogzo.quantize_(Tied(), overrides={"embedding": None})
    assert type(model.head) is nn.Linear
    why = {row.name: row.why for row in fogzo.summary(model).floating}
    assert why["embedding.weight"] == "not selected by filter_fn or overrides"
    text = "head.weight: shared with embedding.weight, which stays float"
    with pytest.raises(ValueError, match=text):
        fogzo.quantize_(Tied(), filter_fn=lambda module, name: name == "head")


def test_of_two_tied_layers_one_alone_is_not_quantized():
    text = "first.weight: shared with second.weight, which stays float"
    with pytest.raises(ValueError, match=text):
        fogzo.quantize_(Tied(), filter_fn=lambda module, name: name == "first")


def test_a_linear_with_its_own_behaviour_stays_float():
    model = nn.Sequential(nn.Linear(4, 4), weight_norm(nn.Linear(4, 4)))
    fogzo.quantize_(model)
    assert [row.name for row in fogzo.summary(model).quantized] == ["0.weight"]


def test_a_weight_that_a_hook_computes_stays_float():
    model = nn.Sequential(nn.Linear(4, 4), torch.nn.utils.spectral_norm(nn.Linear(4, 4)))
    fogzo.quantize_(model)
    assert [row.name for row in fogzo.summary(model).quantized] == ["0.weight"]
    text = "1.weight: nn.Linear: its weight is no parameter"
    with pytest.raises(ValueError, match=text):
        fogzo.quantize_(model, filter_fn=lambda module, name: name == "1")


class Halved(nn.Module):
    def forward(self, w: torch.Tensor) -> torch.Tensor:
        return w / 2


def flat(layer: nn.Module) -> None:
    """As FullyShardedDataParallel leaves it."""
    layer.weight, layer.__dict__["weight"] = None, layer.weight.detach()
    del layer._parameters["weight"]


@pytest.mark.filterwarnings("ignore:.*weight_norm.*deprecated")
@pytest.mark.parametrize("config", [QuantConfig(), QuantConfig(act_bits=8)], ids=["float", "int8"])
@pytest.mark.parametrize(
    ("take", "got"),
    [
        (lambda m: prune.l1_unstructured(m, "weight", 0.5), "is computed by L1Unstructured"),
        (lambda m: parametrize.register_parametrization(m, "weight", Halved()), "is comp.* Halved"),
        (weight_norm, "is computed by _WeightNorm"),
        (nn.utils.weight_norm, "is computed by WeightNorm"),
        (nn.utils.spectral_norm, "is computed by SpectralNorm"),
        (flat, "is no parameter any more, as FullyShardedDataParallel makes it"),
    ],
)
def test_what_took_a_quantized_layers_weight_is_named(take, got, config):
    for layer, x in (
        (QuantLinear(4, 4, config=config), torch.ones(1, 4)),
        (fogzo.QuantConv1d(4, 4, 1, config=config), torch.ones(1, 4, 2)),
        (fogzo.QuantEmbedding(4, 4, config=config), torch.tensor([1])),
    ):
        prune.random_unstructured(layer, "bias", 0.5) if x.dim() > 1 else None  # not this
        take(layer)
        text = f"{type(layer).__name__}: weight {got}, expected "
        with pytest.raises(RuntimeError, match=text):
            layer(x)


@pytest.mark.parametrize("config", [QuantConfig(), QuantConfig(act_bits=8)], ids=["float", "int8"])
def test_a_pruned_bias_is_used_and_trained(config):
    for layer, x in (
        (QuantLinear(4, 4, config=config), torch.ones(1, 4)),
        (fogzo.QuantConv1d(4, 4, 1, config=config), torch.ones(1, 4, 2)),
    ):
        whole, bias = layer(x).detach(), layer.bias.detach().clone()
        prune.l1_unstructured(layer, "bias", 2)
        shape = (-1, *[1] * (x.dim() - 2))
        torch.testing.assert_close(layer(x), whole - (bias * (1 - layer.bias_mask)).view(shape))
        layer(x).sum().backward()
        assert layer.bias_orig.grad.count_nonzero() == 2


def test_summary_says_shapes_bytes_and_reasons():
    model = fogzo.quantize_(mlp(), QuantConfig(bits=2), lambda module, name: name == "0")
    rows = {row.name: row for row in fogzo.summary(model).rows}
    # 8 codes of 2 bits are 2 bytes a row; 6 scales of 4 bytes
    assert rows["0.weight"].bytes == 6 * 2 + 6 * 4
    assert rows["0.weight"].shape == (6, 8)
    assert rows["0.bias"].why == "bias: only the weight of a layer is quantized"
    assert rows["2.weight"].why == "not selected by filter_fn or overrides"
    text = str(fogzo.summary(model))
    assert text.splitlines()[-1] == "1 quantized (36 bytes), 2 float (120 bytes)"
    assert "0.weight  6x8    mid-rise, 2 bits  fixed per channel  36" in text


def encoder(**options: object) -> nn.TransformerEncoder:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True, **options)
    return nn.TransformerEncoder(layer, 2)


def test_attention_output_stays_float_by_name():
    model = fogzo.quantize_(encoder())
    row = next(r for r in fogzo.summary(model).rows if r.name.endswith("out_proj.weight"))
    assert "nn.MultiheadAttention reads out_proj.weight without calling" in row.why
    with pytest.raises(ValueError, match=r"out_proj\.weight: nn\.MultiheadAttention"):
        fogzo.quantize_(encoder(), filter_fn=lambda module, name: "out_proj" in name)


@pytest.mark.parametrize("padding", [False, True])
def test_the_fast_path_of_eval_mode_does_not_skip_quantized_layers(padding):
    model = fogzo.quantize_(encoder(), QuantConfig(grid="sign")).eval()
    x = torch.randn(3, 5, 8)
    mask = torch.tensor([[0, 0, 0, 1, 1], [0, 0, 0, 0, 0], [0, 0, 1, 1, 1]]).bool()
    mask = mask if padding else None
    slow = model(x, src_key_padding_mask=mask).detach()
    calls = []
    for layer in model.layers:
        forward = layer.linear1.quantized_weight
        layer.linear1.quantized_weight = lambda f=forward: calls.append(1) or f()
    with torch.no_grad():
        fast = model(x, src_key_padding_mask=mask)
    assert len(calls) == 2
    kept = torch.ones(3, 5, dtype=torch.bool) if mask is None else ~mask
    # the fused attention rounds otherwise: each is as far from float64 as float32 takes it
    exact = copy.deepcopy(model)
    for layer in exact.layers:
        layer.linear1 = layer.linear1.to_linear(quantized=True)
        layer.linear2 = layer.linear2.to_linear(quantized=True)
    exact = exact.double()(x.double(), src_key_padding_mask=mask)[kept]
    error = (slow[kept] - exact).abs().max().item()
    assert (fast[kept] - exact).abs().max().item() <= 2 * error + 2.0**-23
    latent = encoder().eval()
    latent.load_state_dict({k: v for k, v in model.state_dict().items() if "scale" not in k})
    assert (latent(x, src_key_padding_mask=mask)[kept] - slow[kept]).abs().max() > 0.1


@pytest.mark.filterwarnings("ignore:Initializing zero-element")
def test_an_empty_weight_is_named():
    model = nn.Sequential(nn.Linear(0, 2))
    with pytest.raises(ValueError, match=r"quantize_: 0.weight has shape \(2, 0\), expected"):
        fogzo.quantize_(model, QuantConfig(bits=2))
    assert type(model[0]) is nn.Linear
