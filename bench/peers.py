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
import fogzo_kernels

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


Mixing = tuple[float, float, float]


def mixing(gamma: float, norm: float, noise: str) -> Mixing:
    """What perturbed_pair takes besides tensors: sqrt(1 - gamma) / N, sqrt(gamma), e in bins."""
    return (1 - gamma) ** 0.5 / norm, gamma**0.5, fogzo_kernels.radius("identity", noise)


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


def perturbed_codes(
    w: Tensor, grad: Tensor, scale: Tensor, u: Tensor, along: float, across: float, radius: float
) -> tuple[Tensor, Tensor]:
    """As perturbed_pair, in uint8 codes 0..3: four times less to write."""
    x = w * (1 / scale)
    d = grad * (scale * radius) * along * radius + u * (across * radius)
    return (
        ((x + d - 0.5).round().clamp(-2, 1) + 2).to(torch.uint8),
        ((x - d - 0.5).round().clamp(-2, 1) + 2).to(torch.uint8),
    )


def _perturbed_in_place(
    w: Tensor, grad: Tensor, scale: Tensor, noise: str, mix: Mixing, room: list[Tensor]
) -> tuple[Tensor, Tensor]:
    """As perturbed_pair, into tensors that are there, in as few passes as eager torch allows."""
    along, across, radius = mix
    plus, minus, d = room
    torch.mul(w, 1 / scale, out=plus)
    if noise == "published":
        bound = across * radius * SQRT3
        d.uniform_(-bound, bound)
    else:
        d.uniform_(-1, 1).sign_().mul_(across * radius)
    d.addcmul_(grad, scale, value=along * radius * radius)
    torch.sub(plus, d, out=minus).sub_(0.5)
    plus.add_(d).sub_(0.5)
    for side in (plus, minus):
        side.round_().clamp_(-2, 1).add_(0.5).mul_(scale)
    return plus, minus


def perturbers(
    ws: list[Tensor],
    grads: list[Tensor],
    scales: list[Tensor],
    noise: str,
    mix: Mixing,
    compiled: bool,
) -> dict[str, Callable[[], object]]:
    """Both sides of one probe of every weight, noise drawn inside: calls by name."""
    triples = list(zip(ws, grads, scales, strict=True))
    along, across, radius = mix
    room = [[torch.empty_like(w) for _ in range(3)] for w in ws]

    def draw(w: Tensor) -> Tensor:
        if noise == "published":
            return (torch.rand_like(w) * 2 - 1) * SQRT3
        return torch.where(torch.rand_like(w) < 0.5, -1.0, 1.0)

    def values(w: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return perturbed_pair(w, grad, scale, draw(w), along, across, radius)

    def codes(w: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return perturbed_codes(w, grad, scale, draw(w), along, across, radius)

    def each(one: Callable[[Tensor, Tensor, Tensor], object]) -> Callable[[], object]:
        return lambda: [one(*triple) for triple in triples]

    calls = {
        "eager values": each(values),
        "eager values, in place": lambda: [
            _perturbed_in_place(*triple, noise, mix, tensors)
            for triple, tensors in zip(triples, room, strict=True)
        ],
        "eager codes": each(codes),
    }
    if compiled:
        calls["compile values"] = each(torch.compile(values, dynamic=False))
        calls["compile codes"] = each(torch.compile(codes, dynamic=False))
    return calls


def fake_quantizers(
    ws: list[Tensor], scales: list[Tensor], compiled: bool
) -> dict[str, Callable[[], list[Tensor]]]:
    """2-bit mid-rise values of every weight: calls by name."""
    pairs = list(zip(ws, scales, strict=True))
    out = [torch.empty_like(w) for w in ws]

    def in_place() -> list[Tensor]:
        for (w, scale), into in zip(pairs, out, strict=True):
            torch.mul(w, 1 / scale, out=into)
            into.sub_(0.5).round_().clamp_(-2, 1).add_(0.5).mul_(scale)
        return out

    calls = {
        "eager": lambda: [mid_rise_2(w, scale) for w, scale in pairs],
        "eager, in place": in_place,
    }
    if compiled:
        one = torch.compile(mid_rise_2, dynamic=False)
        calls["compile"] = lambda: [one(w, scale) for w, scale in pairs]
    return calls


def stored_gradient(
    grads: list[Tensor], scales: list[Tensor], u: list[Tensor], difference: float, mix: Mixing
) -> Callable[[], list[Tensor]]:
    """G of one probe from noise that was kept: D v / e, in place."""
    along, across, radius = mix
    out = [torch.empty_like(g) for g in grads]

    def call() -> list[Tensor]:
        for g, scale, noise, into in zip(grads, scales, u, out, strict=True):
            torch.mul(noise, difference * across / (scale * radius), out=into)
            into.add_(g, alpha=difference * along)
        return out

    return call


def linears(x: Tensor, weight: Tensor) -> dict[str, Callable[[], Tensor]]:
    """float32 products with dequantized weights, by name: as nn.Linear does, and preallocated."""
    out, transposed = torch.empty(len(x), len(weight)), weight.t().contiguous()
    return {
        "float32 linear": lambda: F.linear(x, weight),
        "float32 mm, preallocated": lambda: torch.mm(x, transposed, out=out),
    }


def _fbgemm_weight(codes: Tensor, scale: Tensor, grid: fogzo_kernels.Grid) -> Any:
    """The same weights for fbgemm: int8 of twice the value where that fits, else of its floor."""
    factor = 2 if grid.levels <= 64 else 1
    values = (codes.double() + grid.v_min) * factor
    zeros = torch.zeros(len(codes), dtype=torch.long)
    integers = torch.quantize_per_channel(
        (values.floor() * scale / factor).float(), scale.flatten() / factor, zeros, 0, torch.qint8
    )
    return torch.ops.quantized.linear_prepack(integers, None)


def fbgemm_linear(
    x8: Tensor,
    x_scale: float,
    codes: Tensor,
    scale: Tensor,
    grid: fogzo_kernels.Grid,
    wanted: Tensor,
) -> Callable[[], Tensor]:
    """fbgemm's u8s8 linear: weights packed and activations quantized beforehand, 8-bit results.

    The timed call ends at the 8-bit results, the checked value is their float32.
    """
    torch.backends.quantized.engine = "fbgemm"
    weight = _fbgemm_weight(codes, scale, grid)
    given = torch.quantize_per_tensor(x8 * x_scale, x_scale, 128, torch.quint8)
    step = wanted.abs().max().item() / 127
    return lambda: torch.ops.quantized.linear(given, weight, step, 128)


def fbgemm_dynamic(
    x: Tensor, codes: Tensor, scale: Tensor, grid: fogzo_kernels.Grid
) -> Callable[[], Tensor]:
    """fbgemm's linear that quantizes float32 activations itself, one scale for all rows."""
    torch.backends.quantized.engine = "fbgemm"
    weight = _fbgemm_weight(codes, scale, grid)
    return lambda: torch.ops.quantized.linear_dynamic(x, weight, False)


def unpacked_linear(x: Tensor, data: Tensor, scale: Tensor) -> Callable[[], Tensor]:
    """2-bit mid-rise codes unpacked to float32 and multiplied, in eager torch."""
    shifts = torch.arange(0, 8, 2, dtype=torch.uint8)

    def call() -> Tensor:
        codes = (data[..., None] >> shifts).bitwise_and_(3).flatten(-2)
        return F.linear(x, codes.float().sub_(1.5).mul_(scale))

    return call
