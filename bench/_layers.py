"""The weights that the elementwise benches work on: 18 square ones, 2-bit mid-rise, per channel."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

import fogzo_kernels as fk
from fogzo_kernels._reference.noise import probe_sign

from . import _device
from ._options import Options, grid_name, grid_of, sizes

COUNT = 18
SIZE = (768, 768)
GPU_SIZE = (4096, 4096)  # 302M weights
BITS = 2
GAMMA = 1e-4
SEED, STEP = 0, 0


@dataclass(frozen=True)
class Layers:
    """Latent weights, gradients and scales of one size; elements counts those of all weights."""

    weights: list[Tensor]
    grads: list[Tensor]
    scales: list[Tensor]
    bits: float

    @property
    def size(self) -> tuple[int, int]:
        rows, cols = self.weights[0].shape
        return rows, cols

    @cached_property
    def grid(self) -> fk.Grid:
        return grid_of(self.bits)

    @cached_property
    def surrogate(self) -> str:
        return "hardtanh" if self.grid.kind == "sign" else "identity"

    @property
    def elements(self) -> int:
        return sum(w.numel() for w in self.weights)

    @property
    def barred(self) -> bool:
        """Whether they are those that the bars are for; a shape or bits of one's own have none."""
        return (len(self.weights), *self.size, self.bits) == (COUNT, *SIZE, BITS)

    def norm(self, noise: str) -> Tensor:
        found: Tensor = fk.whitened_norm(self.grads, self.scales, self.surrogate, noise=noise)
        return found

    def about(self, **more: object) -> dict[str, object]:
        """What a row says of them."""
        shape: dict[str, object] = {"weights": len(self.weights), "size": list(self.size)}
        return {**shape, "grid": grid_name(self.grid), **more}


def make(op: str, options: Options) -> Layers:
    """Gaussian weights and gradients from a fixed seed, of the shape and bits asked for."""
    count, *size = sizes(op, options.shape, (COUNT, *_device.pick(SIZE, GPU_SIZE)))
    bits = options.bits or BITS
    generator = _device.generator()
    width = size[1]
    weights = [torch.randn(size, generator=generator) / width**0.5 for _ in range(count)]
    grads = [torch.randn(size, generator=generator) / width for _ in range(count)]
    grid = grid_of(bits)
    return Layers(weights, grads, [fk.compute_scale(w, grid) for w in weights], bits)


def sign() -> float:
    """s of probe 0 at our seed and step."""
    return float(probe_sign(SEED, STEP, 0, _device.current()))


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
