"""A small net that trains under a logger, and the rows that it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import Logger

X = torch.randn(32, 8, generator=torch.Generator().manual_seed(1))
Y = torch.arange(32) % 4


def make() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4))
    return fogzo.quantize_(model, fogzo.QuantConfig(bits=2))


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y)


def train(est, model: nn.Module, logger: Logger, steps: int) -> list[Any]:
    """The figures of every step."""
    optimizer, found = torch.optim.SGD(model.parameters(), lr=0.5), []
    for _ in range(steps):
        est.backward(lambda: loss_of(model))
        logger.log(est.last)
        found.append((est.last, est.last.predicted.tolist(), est.forwards))
        optimizer.step()
        optimizer.zero_grad()
    return found


def rows_of(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]
