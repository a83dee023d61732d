"""QuantEmbedding: rows of the quantized table, in a probe from its codes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import fogzo
import fogzo_kernels as fk
from fogzo import QuantConfig, QuantEmbedding
from fogzo.layers.coded_weight import CodedWeight

CONFIGS = [
    QuantConfig(bits=2),
    QuantConfig(grid="sign", scale="lsq", granularity="tensor"),
    QuantConfig(bits=4, granularity="group", group_size=3),
    QuantConfig(bits=2, scale="stretched"),
]
IDS = torch.tensor([[0, 3, 3], [9, 1, 3]])


def layer_of(config: QuantConfig, **options: object) -> QuantEmbedding:
    torch.manual_seed(0)
    return QuantEmbedding(10, 6, config=config, **options)


@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.scale)
def test_it_looks_up_rows_of_the_quantized_weight(config):
    layer = layer_of(config, padding_idx=3, scale_grad_by_freq=True)
    y = layer(IDS)
    assert torch.equal(y, layer.quantized_weight()[IDS])
    g = torch.randn(y.shape)
    (y * g).sum().backward()
    table = layer.quantized_weight().detach().requires_grad_()
    (F.embedding(IDS, table, 3, scale_grad_by_freq=True) * g).sum().backward()
    grad_w, _ = fk.fake_quantize_backward(
        table.grad, layer.weight.detach(), layer.frozen_scale(), layer.grid, layer.surrogate,
        limit=config.limit,
    )  # fmt: skip
    assert torch.equal(layer.weight.grad, grad_w)
    assert layer.weight.grad[3].abs().sum() == 0


def test_quest_gives_rows_that_are_rotated_back():
    layer = layer_of(QuantConfig(bits=4, scale="quest"))
    wanted = fk.hadamard(layer.quantized_weight().detach())[IDS]
    assert torch.equal(layer(IDS), wanted)
    assert torch.equal(layer.to_embedding(quantized=True)(IDS), wanted)
    (layer(IDS) * wanted).sum().backward()
    assert layer.weight.grad[[0, 1, 3, 9]].abs().sum(1).min() > 0
    assert layer.weight.grad[[2, 4, 5, 6, 7, 8]].abs().sum() == 0


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("config", CONFIGS[:3], ids=lambda c: c.scale)
def test_a_probes_codes_become_values_for_the_rows_alone(config, packed, monkeypatch):
    layer = layer_of(config)
    codes = fk.quantize(layer.weight.detach(), layer.frozen_scale(), layer.grid)
    given = fk.pack(codes, layer.grid.storage_bits) if packed else codes
    wanted, sizes = layer(IDS).detach(), []
    real = fk.dequantize
    monkeypatch.setattr(fk, "dequantize", lambda c, *a: sizes.append(tuple(c.shape)) or real(c, *a))
    probe = CodedWeight(given, layer.frozen_scale(), layer.grid, None)
    layer._probe_weight = probe
    assert torch.equal(layer(IDS), wanted)
    assert sizes == [(6, 6)]
    assert layer(IDS[:, :0]).shape == (2, 0, 6)
    for index in (-1, 10):
        with pytest.raises(IndexError, match="index out of range"):
            layer(torch.tensor([index]))


def test_options_that_cannot_be_kept_are_refused():
    for options, text in (
        ({"max_norm": 1.0}, "max_norm is 1.0, which writes the weight in every forward, expected"),
        ({"sparse": True}, "sparse is True, expected False: gradients are dense"),
    ):
        embedding = nn.Embedding(10, 6, **options)
        with pytest.raises(ValueError, match=text):
            QuantEmbedding.from_embedding(embedding)
        model = nn.Sequential(embedding, nn.Linear(6, 2))
        row = fogzo.summary(fogzo.quantize_(model)).rows[0]
        assert row.why == f"nn.Embedding: {text.partition(', expected')[0]}"
        assert type(model[0]) is nn.Embedding


def test_the_padding_row_gets_no_gradient_from_probes_either():
    layer = layer_of(QuantConfig(bits=2), padding_idx=3)
    est = fogzo.FOGZO(layer, gamma=0.5)
    est.backward(lambda: layer(IDS).square().sum())
    assert layer.weight.grad[3].abs().sum() == 0
    assert (layer.weight.grad[[0, 1, 2, 4, 5, 6, 7, 8, 9]] != 0).all()


def test_act_bits_say_nothing_to_it():
    layer = layer_of(QuantConfig(bits=2, act_bits=8))
    assert layer.act_bits is None
    assert "act_bits" not in repr(layer)
    assert torch.equal(layer(IDS), layer_of(QuantConfig(bits=2))(IDS))
    assert fogzo.summary(layer).rows[0].inputs == ""
    assert list(layer.state_dict()) == ["weight", "scale"]
