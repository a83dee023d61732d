"""Weights that are zero when they are quantized: rows, heads and adapters learn all the same."""

from __future__ import annotations

import math
import warnings

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import QuantConfig, QuantLinear

X = torch.randn(64, 16, generator=torch.Generator().manual_seed(1))
Y = (X @ torch.randn(16, 4, generator=torch.Generator().manual_seed(2))).argmax(1)
ONCE = [QuantConfig(bits=2, scale=scale) for scale in ("fixed", "lsq", "stretched")]
EACH = [
    QuantConfig(grid="ternary", scale="absmean"),
    QuantConfig(bits=4, scale="absmax"),
    QuantConfig(bits=4, scale="quest"),
]
NAME = [c.scale for c in (*ONCE, *EACH)]


def net(zero: slice | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 32), nn.ReLU(), nn.Linear(32, 4))
    if zero is not None:
        with torch.no_grad():
            model[2].weight[zero] = 0
    return model


def trained(model: nn.Module, est: fogzo.STE | fogzo.FOGZO, steps: int = 40) -> float:
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(steps):
        loss = est.backward(lambda: F.cross_entropy(model(X), Y))
        norm = nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert norm.isfinite()
        optimizer.step()
        optimizer.zero_grad()
    return loss.item()


@pytest.mark.parametrize("make", [fogzo.STE, fogzo.FOGZO])
@pytest.mark.parametrize("config", ONCE, ids=NAME[:3])
def test_a_zero_head_learns(config, make):
    model = net(slice(None))
    text = f"quantize_: 2.weight is all zero, which gives scale '{config.scale}' nothing to go by"
    with pytest.warns(UserWarning, match=f"{text}: took .*, that of torch's default"):
        fogzo.quantize_(model, config)
    assert trained(model, make(model)) < 1.1  # log 4 = 1.39 is what it begins with


@pytest.mark.parametrize(
    ("granularity", "size"), [("tensor", None), ("channel", None), ("group", 8)]
)
@pytest.mark.parametrize("config", ONCE, ids=NAME[:3])
def test_a_zero_weight_gets_the_scale_of_torchs_own(config, granularity, size):
    config = QuantConfig(
        bits=2, scale=config.scale, granularity=granularity, group_size=size
    )  # fmt: skip
    torch.manual_seed(0)
    for layer, call in (
        (nn.Linear(64, 500), fogzo.QuantLinear.from_linear),
        (nn.Conv2d(16, 500, 2, groups=1), fogzo.QuantConv2d.from_conv),
        (nn.Embedding(500, 64), fogzo.QuantEmbedding.from_embedding),
    ):
        began = call(layer, config).scale.detach().mean()
        nn.init.zeros_(layer.weight)
        with pytest.warns(UserWarning, match="weight is all zero, which"):
            scale = call(layer, config).scale.detach()
        assert scale.unique().numel() == 1
        near = 0.05 if config.scale != "stretched" else 0.25  # it goes by the largest alone
        assert abs(scale.mean() / began - 1) < near
    assert scale.shape == call(nn.Embedding(500, 64), config).scale.shape


@pytest.mark.parametrize("config", ONCE, ids=NAME[:3])
def test_rows_of_zeros_get_the_mean_of_the_others(config):
    model = net(slice(1, 3))
    wanted = fogzo.quantize_(nn.Sequential(net()[2]), config)[0].scale.detach()[[0, 3]].mean()
    with pytest.warns(UserWarning, match=r"2.weight is all zero in 2 of 4 rows, .* mean of the ot"):
        fogzo.quantize_(model, config)
    torch.testing.assert_close(model[2].scale.detach()[1:3], wanted.expand(2, 1))
    assert model[2].scale.flatten()[0] != wanted


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embedding = nn.Embedding(12, 16, padding_idx=0)
        self.head = nn.Linear(16, 12, bias=False)
        self.head.weight = self.embedding.weight

    def forward(self, ids: Tensor) -> Tensor:
        return self.head(F.relu(self.embedding(ids)))


def test_the_padding_row_of_a_tied_head_has_a_finite_gradient():
    model, ids = Tied(), torch.arange(12)
    with pytest.warns(UserWarning, match="embedding.weight is all zero in 1 of 12 rows"):
        fogzo.quantize_(model)
    row = model.embedding.scale[0].clone()
    fogzo.FOGZO(model).backward(lambda: F.cross_entropy(model(ids), ids))
    norms = model.head.weight.grad.norm(dim=1)
    assert 0 < norms[0] < 10 * norms[1:].max()
    # the layer that gives the row no gradient does not take the scale away again
    model.embedding.rescale()
    assert torch.equal(model.head.scale[0], row)


def test_a_padding_row_that_nothing_trains_stays_zero_without_a_word():
    embedding = nn.Embedding(12, 16, padding_idx=3)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for config in (*ONCE, *EACH):
            layer = fogzo.QuantEmbedding.from_embedding(embedding, config)
            assert layer(torch.tensor([3])).abs().max() <= 1e-5
            (model,) = fogzo.quantize_(nn.Sequential(nn.Embedding(12, 16, padding_idx=3)), config)
            assert model(torch.tensor([3])).abs().max() <= 1e-5
            model.rescale()


@pytest.mark.parametrize("config", EACH, ids=NAME[3:])
def test_rules_that_follow_the_weight_warn_and_begin_by_the_ste(config):
    model = net(slice(None))
    text = f"2.weight is all zero: until it is not, scale '{config.scale}' is 1e-08 there, and pro"
    with pytest.warns(UserWarning, match=text):
        fogzo.quantize_(model, config)
    assert model[2].scale.flatten().tolist() == pytest.approx([1e-8] * 4)
    assert trained(model, fogzo.FOGZO(model, start=1)) < 1.1


@pytest.mark.parametrize("config", EACH, ids=NAME[3:])
def test_their_gradients_are_finite_where_rows_are_zero(config):
    model = net(slice(1, 2))
    with pytest.warns(UserWarning, match="2.weight is all zero in 1 of 4 rows"):
        fogzo.quantize_(model, config)
    fogzo.FOGZO(model).backward(lambda: F.cross_entropy(model(X), Y))
    assert math.isfinite(model[2].weight.grad.square().sum().item())


def test_no_mean_is_taken_of_a_padding_row():
    embedding = nn.Embedding(4, 16, padding_idx=3)
    for rows in (slice(None), slice(2, 3)):
        embedding.reset_parameters()
        with torch.no_grad():
            embedding.weight[rows] = 0
        with pytest.warns(UserWarning, match="weight is all zero in"):
            scale = fogzo.QuantEmbedding.from_embedding(embedding).scale
        assert (scale[:3] > 0.5).all()
        assert scale[3] == 2.0**-100
    torch.testing.assert_close(scale[2], scale[:2].mean(0))


def test_a_given_scale_and_a_layer_without_memory_need_none():
    linear = nn.Linear(4, 2)
    nn.init.zeros_(linear.weight)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        layer = QuantLinear.from_linear(linear, QuantConfig(bits=2, scale_value=0.5))
        assert layer.scale.flatten().tolist() == [0.5, 0.5]
        QuantLinear(4, 2, device="meta")


def test_a_float_checkpoint_of_zeros_warns_by_the_layer():
    layer = QuantLinear(4, 2)
    state = {"weight": torch.zeros(2, 4), "bias": torch.zeros(2)}
    with pytest.warns(UserWarning, match=r"QuantLinear\.rescale: weight is all zero, which"):
        layer.load_state_dict(state, strict=False)
    assert (layer.scale > 0.1).all()
