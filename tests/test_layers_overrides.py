"""quantize_ with a config by name pattern, and what it refuses."""

from __future__ import annotations

import pytest
import torch
from test_layers_training import Net
from torch import nn

import fogzo
from fogzo import QuantConfig

FOUR, EIGHT = QuantConfig(bits=4), QuantConfig(bits=8)


def stack() -> nn.Module:
    torch.manual_seed(0)
    block = lambda: nn.ModuleDict({"attn": nn.Linear(4, 4), "mlp": nn.Sequential(nn.Linear(4, 4))})  # noqa: E731
    return nn.ModuleDict({"layers": nn.ModuleList([block(), block()]), "lm_head": nn.Linear(4, 3)})


def bits(model: nn.Module) -> dict[str, int | None]:
    return {
        name: module.grid.bits if isinstance(module, fogzo.QuantLinear) else None
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
    }


def test_the_last_pattern_that_matches_counts():
    model = stack()
    overrides = {"layers.*": FOUR, "layers.1.*": EIGHT, "*.mlp.*": FOUR, "lm_head": None}
    fogzo.quantize_(model, QuantConfig(bits=2), overrides=overrides)
    assert bits(model) == {
        "layers.0.attn": 4, "layers.0.mlp.0": 4, "layers.1.attn": 8, "layers.1.mlp.0": 4,
        "lm_head": None,
    }  # fmt: skip
    why = {row.name: row.why for row in fogzo.summary(model).floating}
    assert why["lm_head.weight"] == "not selected by filter_fn or overrides"


def test_the_rest_keeps_the_config_and_the_filter_goes_first():
    model = stack()
    fogzo.quantize_(
        model, FOUR, lambda module, name: "attn" in name, overrides={"layers.?.attn": EIGHT}
    )
    assert list(bits(model).values()) == [8, None, 8, None, None]
    model = stack()
    fogzo.quantize_(model, FOUR, overrides={"*[1].attn": EIGHT})
    assert list(bits(model).values()) == [4, 4, 8, 4, 4]


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        ({"*mlp": EIGHT}, r"overrides has '\*mlp', which matches no layer that filter_fn selects"),
        ({"LM_head": None}, "overrides has 'LM_head', which matches no layer"),
        ({"layers.0": None}, "expected a pattern of whole names, such as 'layers.0.attn'"),
        ({"*": None}, "model has nothing to quantize, expected at least one nn.Linear"),
    ],
)
def test_a_pattern_without_effect_is_refused_before_any_change(overrides, text):
    model = stack()
    with pytest.raises(ValueError, match=text):
        fogzo.quantize_(model, overrides={"*": FOUR, **overrides})
    assert set(bits(model).values()) == {None}


def test_a_pattern_for_what_the_filter_leaves_is_refused():
    with pytest.raises(ValueError, match="'lm_head', which matches no layer that filter_fn"):
        fogzo.quantize_(stack(), FOUR, lambda m, name: "attn" in name, {"lm_head": EIGHT})


@pytest.mark.parametrize(
    ("overrides", "text"),
    [
        (["lm_head"], "overrides is a list, expected a dict of patterns"),
        ({3: None}, r"overrides has the key 3, expected names with \* and \?"),
        ({"lm_head": 8}, "overrides has a int for 'lm_head', expected a QuantConfig or None"),
    ],
)
def test_other_types_are_refused(overrides, text):
    with pytest.raises(TypeError, match=text):
        fogzo.quantize_(stack(), overrides=overrides)


def test_tied_layers_take_one_config():
    def tied() -> nn.Module:
        model = Net()
        model.out = nn.Linear(8, 12, bias=False)
        model.out.weight = model.embedding.weight
        return model

    text = "overrides gives out.weight another config than embedding.weight, with which it is tied"
    model = tied()
    with pytest.raises(ValueError, match=text):
        fogzo.quantize_(model, FOUR, overrides={"out": EIGHT})
    assert type(model.embedding) is nn.Embedding
    fogzo.quantize_(model, FOUR, overrides={"out": EIGHT, "embedding": EIGHT})
    assert model.out.scale is model.embedding.scale
    assert (model.out.grid.bits, model.head.grid.bits) == (8, 4)
