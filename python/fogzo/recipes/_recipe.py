"""What a training recipe is: data, model and defaults; the loop in _run.py does the rest."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

Batch = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Task:
    """A recipe's data on one device and what to do with them.

    examples: number of training examples; batch: indices (int64) -> inputs and targets;
    loss: (model, batch) -> mean loss, a 0-dim tensor with a gradient;
    evaluate: model -> (mean loss over the whole training set, accuracy on the test set in [0, 1]).
    """

    examples: int
    batch: Callable[[Tensor], Batch]
    loss: Callable[[nn.Module, Batch], Tensor]
    evaluate: Callable[[nn.Module], tuple[float, float]]


@dataclass(frozen=True)
class Recipe:
    """One `fogzo train NAME`.

    name: as typed; about: one line for --help; estimators: the default for --estimators;
    steps, seeds, batch_size, threads: defaults; learning_rates: Adam's initial rate by estimator
    kind;
    task: (data folder or None for the packaged data, device) -> Task;
    model: (seed, surrogate=) -> quantized model with its initial weights.
    """

    name: str
    about: str
    estimators: str
    steps: int
    seeds: int
    batch_size: int
    threads: int
    learning_rates: Mapping[str, float]
    task: Callable[[Path | None, torch.device], Task]
    model: Callable[..., nn.Module]
