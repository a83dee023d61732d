"""fogzo's layers through torchao's own quantize_."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch import nn

import fogzo
from fogzo import QuantConfig

torchao = pytest.importorskip("torchao.quantization", reason="torchao is not installed")
bridge = pytest.importorskip("fogzo.integrations.torchao")
LSQ = QuantConfig(bits=2, scale="lsq")


def model_of() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 8), nn.Linear(8, 4))


def test_it_quantizes_what_its_filter_selects_as_fogzo_does():
    model, own = model_of(), model_of()
    first = model[0]
    torchao.quantize_(model, bridge.FogzoConfig(LSQ), lambda module, name: name in ("0", "2"))
    fogzo.quantize_(own, LSQ, lambda module, name: name in ("0", "2"))
    assert model[0] is first
    assert [type(m) for m in model] == [type(m) for m in own]
    x = torch.randn(3, 8)
    assert torch.equal(model(x), own(x))
    assert repr(model) == repr(own)
    est = fogzo.FOGZO(model)
    est.backward(lambda: model(x).square().mean())
    assert model[0].scale.grad.any()


def test_it_takes_convolutions_and_embeddings_where_the_filter_does():
    model = nn.Sequential(nn.Embedding(9, 8), nn.Conv1d(3, 4, 1), nn.Linear(8, 8))
    torchao.quantize_(
        model, bridge.FogzoConfig(), lambda m, _: isinstance(m, (nn.Embedding, nn.Conv1d))
    )
    kinds = [type(m).__name__ for m in model]
    assert kinds == ["QuantEmbedding", "QuantConv1d", "Linear"]


def test_tied_layers_get_one_scale():
    model = model_of()
    model[2].weight = model[0].weight
    torchao.quantize_(model, bridge.FogzoConfig(LSQ))
    assert model[2].weight is model[0].weight
    assert model[2].scale is model[0].scale


def test_a_config_used_again_takes_the_weights_of_then():
    config, layer = bridge.FogzoConfig(LSQ), nn.Linear(8, 8)
    first = nn.Sequential(layer)
    torchao.quantize_(first, config)
    with torch.no_grad():
        first[0].weight.mul_(2)
    again = nn.Sequential(first[0].to_linear())
    torchao.quantize_(again, config)
    assert again[0].weight is first[0].weight
    assert torch.equal(again[0].scale, 2 * first[0].scale)


def test_it_refuses_by_name():
    with pytest.raises(TypeError, match="FogzoConfig: config is a dict, expected a QuantConfig"):
        bridge.FogzoConfig({"bits": 2})
    cases = [
        (nn.Sequential(nn.LayerNorm(8)), "module is a LayerNorm: only the weight of nn.Linear"),
        (fogzo.quantize_(nn.Linear(8, 8)), "is a QuantLinear, which is quantized already"),
    ]
    for model, text in cases:
        with pytest.raises(ValueError, match=text):
            torchao.quantize_(
                model, bridge.FogzoConfig(), lambda m, _: not isinstance(m, nn.Sequential)
            )
    bad = nn.Linear(8, 8).half()
    with pytest.raises(TypeError, match="Linear.weight has dtype float16, expected float32"):
        torchao.quantize_(bad, bridge.FogzoConfig())


def test_import_fogzo_reads_no_torchao_and_the_bridge_says_how_to_get_it():
    code = (
        "import sys, fogzo\nprint([m for m in sys.modules if m.startswith('torchao')])\n"
        "sys.modules['torchao'] = None\ntry:\n    import fogzo.integrations.torchao\n"
        "except ImportError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    first, last = done.stdout.strip().splitlines()
    assert first == "[]"
    assert last.startswith("fogzo.integrations.torchao needs torchao (")
    assert last.endswith("): pip install torchao")
