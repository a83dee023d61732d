"""The weights that the elementwise benches work on: 18 square ones, 2-bit mid-rise, per channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

import fogzo_kernels as fk

COUNT = 18
SIZE = (768, 768)
GRID = fk.Grid("mid-rise", bits=2)
GAMMA = 1e-4
SEED, STEP = 0, 0


@dataclass(frozen=True)
class Layers:
    """Latent weights, gradients and scales; elements counts those of all weights."""

    weights: list[Tensor]
    grads: list[Tensor]
    scales: list[Tensor]

    @property
    def elements(self) -> int:
        return sum(w.numel() for w in self.weights)

    def norm(self, noise: str) -> Tensor:
        found: Tensor = fk.whitened_norm(self.grads, self.scales, "identity", noise=noise)
        return found


def make() -> Layers:
    """Gaussian weights and gradients from a fixed seed."""
    generator = torch.Generator().manual_seed(0)
    width = SIZE[1]
    weights = [torch.randn(SIZE, generator=generator) / width**0.5 for _ in range(COUNT)]
    grads = [torch.randn(SIZE, generator=generator) / width for _ in range(COUNT)]
    return Layers(weights, grads, [fk.compute_scale(w, GRID) for w in weights])


def read(layers: Layers) -> Callable[[], None]:
    """A call that reads every weight and gradient once, as fast as torch can: their dot product."""
    pairs = [(w.view(-1), g.view(-1)) for w, g in zip(layers.weights, layers.grads, strict=True)]

    def call() -> None:
        for w, g in pairs:
            torch.dot(w, g)

    return call


def copy(layers: Layers) -> Callable[[], None]:
    """A call that copies every weight with torch's copy_."""
    targets = [torch.empty_like(w) for w in layers.weights]

    def call() -> None:
        for w, target in zip(layers.weights, targets, strict=True):
            target.copy_(w)

    return call
