"""Transformers and a ResNet as people have them: a few steps, each probe equal to a slow loop's."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

import pytest
import torch
from by_hand import guides_of, losses
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, QuantConfig

pytest.importorskip("transformers", reason="pip install 'fogzo-kernels[hf]'")

from transformers import (
    DeiTConfig,
    DeiTForImageClassification,
    LlamaConfig,
    LlamaForCausalLM,
    ResNetConfig,
    ResNetForImageClassification,
)

EPS = torch.finfo(torch.float32).eps
STEPS = 2


class Job(NamedTuple):
    model: nn.Module
    inputs: dict[str, Tensor]


def images() -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(6, 3, 16, 16, generator=generator)
    return {"pixel_values": pixels, "labels": torch.arange(6) % 4}


def llama() -> Job:
    config = LlamaConfig(
        vocab_size=64, hidden_size=32, intermediate_size=48, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=32, use_cache=False,
    )  # fmt: skip
    ids = torch.randint(0, 64, (3, 10), generator=torch.Generator().manual_seed(1))
    return Job(LlamaForCausalLM(config), {"input_ids": ids, "labels": ids})


def deit() -> Job:
    config = DeiTConfig(
        image_size=16, patch_size=8, hidden_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=48, num_labels=4, hidden_dropout_prob=0.1,
        attention_probs_dropout_prob=0.1,
    )  # fmt: skip
    return Job(DeiTForImageClassification(config), images())


def resnet() -> Job:
    config = ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", num_labels=4
    )
    return Job(ResNetForImageClassification(config), images())


def closure_of(inputs: dict[str, Tensor], half: bool) -> Callable[[nn.Module], Any]:
    def of_model(model: nn.Module) -> Callable[[], Tensor]:
        def closure() -> Tensor:
            autocast: AbstractContextManager[Any] = torch.autocast("cpu", torch.bfloat16, half)
            with autocast:
                loss: Tensor = model(**inputs).loss
            return loss

        return closure

    return of_model


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("mode", ["sequential", "batched"])
@pytest.mark.parametrize("probes", [1, 2])
@pytest.mark.parametrize("act_bits", [None, 8], ids=["W2", "W2A8"])
@pytest.mark.parametrize("make", [llama, deit, resnet])
def test_a_model_trains_and_its_probes_are_the_slow_loops(make, act_bits, probes, mode, half):
    torch.manual_seed(0)
    model, inputs = make()
    fogzo.quantize_(model.train(), QuantConfig(bits=2, act_bits=act_bits))
    est = FOGZO(model, probes=probes, probes_mode=mode)
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    of_model = closure_of(inputs, half)
    first = 0.0
    for step in range(STEPS):
        torch.manual_seed(5)  # the same masks in every step: losses that can be compared
        before, state = copy.deepcopy(model), torch.get_rng_state()
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*(one after the other|performance drop)")
            loss = est.backward(of_model(model)).item()
        for p, old in zip(model.parameters(), before.parameters(), strict=True):
            assert torch.equal(p, old)
            assert p.grad is None or torch.isfinite(p.grad).all()
        first = loss if step == 0 else first
        if step < STEPS - 1:
            optimizer.step()
            optimizer.zero_grad()
    assert loss < first
    assert est.last.probes_mode == mode
    with torch.random.fork_rng():
        torch.set_rng_state(state)
        guides = guides_of(before, of_model)
    given: dict[str, Any] = {"norm": est.last.norm, "step": STEPS - 1}
    want = losses(before, est, of_model, guides, state, **given)
    if half and act_bits is None and mode == "sequential":
        assert torch.equal(est.last.losses, want)
        return
    if half:
        # twice the error of the same loop in half precision
        full = losses(before, est, closure_of(inputs, False), guides, state, **given)
        tolerance = 2 * (want - full).abs().max() + 8 * EPS * want.abs().max()
    else:
        doubles = {k: t.double() if t.is_floating_point() else t for k, t in inputs.items()}
        with without_dropout(before), without_dropout(model):
            exact = losses(
                before, est, closure_of(doubles, False), guides, state, dtype=torch.float64, **given
            )
            plain = losses(before, est, of_model, guides, state, **given)
        # twice the error of the float32 loop, and a code of an input that rounds the other way
        tolerance = 2 * (plain - exact).abs().max() + 8 * EPS * want.abs().max()
        tolerance += 0.0 if act_bits is None else ONE_CODE
    assert (est.last.losses - want).abs().max() <= tolerance


# An input between two integers is another by 1/127 of its row's largest, times a weight of the size
# 1/sqrt(K), in one of the rows that the loss is the mean of: about 1e-3 / 6 of a logit.
ONE_CODE = 2e-4


class without_dropout:
    """Float64 forwards draw other masks: compared without any."""

    def __init__(self, model: nn.Module) -> None:
        self._layers = [m for m in model.modules() if isinstance(m, nn.Dropout)]

    def __enter__(self) -> None:
        self._kept = [m.p for m in self._layers]
        for layer in self._layers:
            layer.p = 0.0

    def __exit__(self, *_: object) -> None:
        for layer, p in zip(self._layers, self._kept, strict=True):
            layer.p = p
