"""A small net, its batch and its loss, for tests of batched probes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import QuantConfig

GENERATOR = torch.Generator().manual_seed(1)
X, Y = torch.randn(12, 8, generator=GENERATOR), torch.arange(12) % 4


def make(act_bits: int | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Linear(16, 16, bias=False),
        nn.LayerNorm(16),
        nn.Linear(16, 4),
    )
    return fogzo.quantize_(model, QuantConfig(act_bits=act_bits))


def loss_of(model: nn.Module) -> Callable[[Any], Tensor]:
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1])
