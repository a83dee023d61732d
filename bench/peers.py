"""What a good user would write in stock PyTorch: everything our operations are compared with.

The fastest listed variant is the divisor. Each is checked equal to ours before it is timed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo

SQRT3 = math.sqrt(3)


def mid_rise_2(w: Tensor, scale: Tensor) -> Tensor:
    """2-bit mid-rise values: scale * (clamp(round(w / scale - 1/2), -2, 1) + 1/2)."""
    return ((w * (1 / scale) - 0.5).round().clamp(-2, 1) + 0.5) * scale


class DetachLinear(nn.Module):
    """STE by the detach trick: w + (quantized(w) - w).detach()."""

    scale: Tensor

    def __init__(self, weight: Tensor, scale: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight.clone())
        self.register_buffer("scale", scale.clone())

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        return F.linear(x, w + (mid_rise_2(w, self.scale) - w).detach())


class _RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor) -> Tensor:
        codes = (w * (1 / scale)).sub_(0.5).round_().clamp_(-2, 1)
        return codes.add_(0.5).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class FunctionLinear(DetachLinear):
    """STE as an autograd Function whose backward is the identity, in place where it may be."""

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, _RoundSTE.apply(self.weight, self.scale))


def ste_model(layer: type[DetachLinear], quantized: nn.Sequential) -> nn.Sequential:
    """The same network with stock layers: weights and scales of `quantized`, layer by layer."""
    return nn.Sequential(
        *(
            layer(module.weight.detach(), module.scale)
            if isinstance(module, fogzo.QuantLinear)
            else nn.ReLU()
            for module in quantized
        )
    )


def ste_step(model: nn.Module, batch: tuple[Tensor, Tensor], lr: float) -> Callable[[], Tensor]:
    """One plain training step: forward, backward, Adam."""
    inputs, targets = batch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def step() -> Tensor:
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        return loss.detach()

    return step


def uniform_noise(out: Tensor) -> Callable[[], Tensor]:
    """Noise of mean 0 and variance 1 by torch's own generator: sqrt3 (2r - 1), preallocated."""
    return lambda: out.uniform_(-SQRT3, SQRT3)


def sign_noise(out: Tensor) -> Callable[[], Tensor]:
    """+-1 with equal probability by torch's own generator, preallocated."""
    return lambda: out.uniform_(-1, 1).sign_()


NOISES = {"published": uniform_noise, "rademacher": sign_noise}


def perturbed_pair(
    w: Tensor, grad: Tensor, scale: Tensor, u: Tensor, along: float, across: float, radius: float
) -> tuple[Tensor, Tensor]:
    """Both sides of one probe as 2-bit mid-rise values, for given noise u (variance 1).

    v = along * e a g + across * u;  values of w +- e a v.

    Args:
        w, grad, u: float32 [N, K]; scale: float32 [N, 1].
        along: s sqrt(1 - gamma) / N; across: sqrt(gamma).
        radius: e, in bins.
    """
    step = scale * radius
    shift = (grad * step).mul_(along).add_(u, alpha=across).mul_(step)
    return mid_rise_2(w + shift, scale), mid_rise_2(w - shift, scale)
