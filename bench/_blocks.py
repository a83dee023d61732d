"""Transformer blocks without a head: what the step rows of DESIGN section 7 are measured on."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo

from . import _device

COUNT = 6
WIDTH = 256
HEAD = 64  # features of an attention head
SEQUENCE = 64
TOKENS = 2048
BITS = 2


class Size(NamedTuple):
    """Blocks of a width, tokens of a batch, in sequences."""

    blocks: int
    width: int
    sequence: int
    tokens: int


def of_device() -> Size:
    """What DESIGN section 7 measures on the CPU, or what fills a GPU."""
    return _device.pick(Size(COUNT, WIDTH, SEQUENCE, TOKENS), Size(4, 2048, 512, 16384))


class Block(nn.Module):
    """x + attention(norm(x)), then x + mlp(norm(x)): four linear layers, 12 width^2 weights."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norms = nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)])
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.up, self.down = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x: Tensor) -> Tensor:
        """x [sequences, length, width] -> the same shape."""
        sequences, length, width = x.shape
        parts = self.qkv(self.norms[0](x)).view(sequences, length, 3, -1, min(HEAD, width))
        q, k, v = parts.permute(2, 0, 3, 1, 4)  # each [sequences, heads, length, features]
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(x.shape)
        x = x + self.out(mixed)
        down: Tensor = self.down(F.gelu(self.up(self.norms[1](x))))
        return x + down


def net(act_bits: int | None) -> nn.Sequential:
    """Quantized blocks: 2-bit mid-rise weights, a scale a channel, surrogate identity."""
    torch.manual_seed(0)
    size = of_device()
    model = nn.Sequential(*(Block(size.width) for _ in range(size.blocks)))
    config = fogzo.QuantConfig(bits=BITS, surrogate="identity", act_bits=act_bits)
    fogzo.quantize_(model, config)
    return model


def batch() -> tuple[Tensor, Tensor]:
    """Inputs and targets, [sequences, length, width]."""
    generator, size = _device.generator(1), of_device()
    shape = (size.tokens // size.sequence, size.sequence, size.width)
    return torch.randn(shape, generator=generator), torch.randn(shape, generator=generator)


def products(model: nn.Module) -> Callable[[], None]:
    """A call that makes every float32 product of one forward, and nothing else."""
    layers = [m for m in model.modules() if isinstance(m, fogzo.QuantLinear)]
    pairs = []
    with torch.no_grad():
        for layer in layers:
            pairs.append(
                (torch.randn(of_device().tokens, layer.in_features), layer.quantized_weight())
            )

    @torch.no_grad()
    def call() -> None:
        for (x, weight), layer in zip(pairs, layers, strict=True):
            F.linear(x, weight, layer.bias)

    return call


def low_bit_bar(forward: float, products: float) -> float:
    """Most of a W2A8 step over the plain step: 1 + (2/3)(1 - f/2) + 0.06, f the products' share."""
    return 1 + 2 / 3 * (1 - products / forward / 2) + 0.06


def cost(forward: float, products: float, step: float) -> float:
    """1 + 2 (t_fwd - t_lin + t_lin / 3) / t_step: int8 probes whose products take a third."""
    return 1 + 2 * (forward - products + products / 3) / step
