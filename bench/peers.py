"""What a good user would write in stock PyTorch: everything our operations are compared with.

The fastest listed variant is the divisor. Each is checked equal to ours before it is timed. The
matmul's are in peers_matmul.py, those of codes and their bytes in peers_codes.py.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels

from .peers_grid import codes as codes_of
from .peers_grid import nearest_, on_grid

SQRT3 = math.sqrt(3)
Call = Callable[[], Any]


class DetachLinear(nn.Module):
    """STE by the detach trick: w + (quantized(w) - w).detach(); the same for inputs of 8 bits."""

    scale: Tensor

    def __init__(self, quantized: fogzo.QuantLinear) -> None:
        super().__init__()
        self.weight = nn.Parameter(quantized.weight.detach().clone())
        bias = quantized.bias
        self.bias = None if bias is None else nn.Parameter(bias.detach().clone())
        self.register_buffer("scale", quantized.scale.clone())
        self.int8 = quantized.config.act_bits == 8

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight
        if self.int8:
            x = x + (_int8(x) - x).detach()
        return F.linear(x, w + (on_grid(w, self.scale) - w).detach(), self.bias)


def _int8(x: Tensor) -> Tensor:
    """Values of 8 bits with a scale a row, in as few passes as eager torch allows."""
    scale = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True).div_(127).clamp_(min=1e-30)
    return (x / scale).round_().mul_(scale)


class _RoundSTE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor) -> Tensor:
        codes = (w * (1 / scale)).sub_(0.5).round_().clamp_(-2, 1)
        return codes.add_(0.5).mul_(scale)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class _Int8STE(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return _int8(x)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:
        return grads[0]


class FunctionLinear(DetachLinear):
    """STE as an autograd Function whose backward is the identity, in place where it may be."""

    def forward(self, x: Tensor) -> Tensor:
        if self.int8:
            x = _Int8STE.apply(x)
        return F.linear(x, _RoundSTE.apply(self.weight, self.scale), self.bias)


def ste_model(layer: type[DetachLinear], quantized: nn.Sequential) -> nn.Sequential:
    """The same network with stock layers: weights and scales of `quantized`, layer by layer."""
    model = copy.deepcopy(quantized)
    for name, module in quantized.named_modules():
        if isinstance(module, fogzo.QuantLinear):
            model.set_submodule(name, layer(module))
    return model


def ste_step(
    model: nn.Module,
    batch: tuple[Tensor, Tensor],
    lr: float,
    loss_of: Callable[[Tensor, Tensor], Tensor] = F.cross_entropy,
) -> Callable[[], Tensor]:
    """One plain training step: forward, backward, Adam."""
    inputs, targets = batch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def step() -> Tensor:
        loss = loss_of(model(inputs), targets)
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


def mixing(gamma: float, norm: float, noise: str, surrogate: str = "identity") -> Mixing:
    """What perturbed_pair takes besides tensors: sqrt(1 - gamma) / N, sqrt(gamma), e in bins."""
    return (1 - gamma) ** 0.5 / norm, gamma**0.5, fogzo_kernels.radius(surrogate, noise)


def perturbed_pair(
    w: Tensor,
    grad: Tensor,
    scale: Tensor,
    u: Tensor,
    along: float,
    across: float,
    radius: float,
    bits: float = 2,
) -> tuple[Tensor, Tensor]:
    """Both sides of one probe as values, for given noise u (variance 1).

    v = along * e a g + across * u;  values of w +- e a v.

    Args:
        w, grad, u: float32 [N, K]; scale: float32 [N, 1].
        along: s sqrt(1 - gamma) / N; across: sqrt(gamma).
        radius: e, in bins.
    """
    step = scale * radius
    shift = (grad * step).mul_(along).add_(u, alpha=across).mul_(step)
    return on_grid(w + shift, scale, bits), on_grid(w - shift, scale, bits)


def perturbed_codes(
    w: Tensor,
    grad: Tensor,
    scale: Tensor,
    u: Tensor,
    along: float,
    across: float,
    radius: float,
    bits: float = 2,
) -> tuple[Tensor, Tensor]:
    """As perturbed_pair, in uint8 codes: four times less to write."""
    x = w * (1 / scale)
    d = grad * (scale * radius) * along * radius + u * (across * radius)
    return codes_of(x + d, bits), codes_of(x - d, bits)


def _perturbed_in_place(
    w: Tensor, grad: Tensor, scale: Tensor, noise: str, mix: Mixing, room: list[Tensor], bits: float
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
    torch.sub(plus, d, out=minus)
    plus.add_(d)
    for side in (plus, minus):
        nearest_(side, bits).mul_(scale)
    return plus, minus


def perturbers(
    ws: list[Tensor],
    grads: list[Tensor],
    scales: list[Tensor],
    noise: str,
    mix: Mixing,
    compiled: bool,
    bits: float = 2,
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
        return perturbed_pair(w, grad, scale, draw(w), along, across, radius, bits)

    def codes(w: Tensor, grad: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        return perturbed_codes(w, grad, scale, draw(w), along, across, radius, bits)

    def each(one: Callable[[Tensor, Tensor, Tensor], object]) -> Callable[[], object]:
        return lambda: [one(*triple) for triple in triples]

    calls = {
        "eager values": each(values),
        "eager values, in place": lambda: [
            _perturbed_in_place(*triple, noise, mix, tensors, bits)
            for triple, tensors in zip(triples, room, strict=True)
        ],
        "eager codes": each(codes),
    }
    if compiled:
        calls["compile values"] = each(torch.compile(values, dynamic=False))
        calls["compile codes"] = each(torch.compile(codes, dynamic=False))
    return calls


def each(
    one: Callable[[Tensor, Tensor], Tensor],
    pairs: list[tuple[Tensor, Tensor]],
    in_place: Call,
    compiled: bool,
) -> dict[str, Call]:
    """Calls by name: `one` of each pair, the same work in place, and `one` compiled."""
    calls: dict[str, Call] = {
        "eager": lambda: [one(*pair) for pair in pairs],
        "eager, in place": in_place,
    }
    if compiled:
        fused = torch.compile(one, dynamic=False)
        calls["compile"] = lambda: [fused(*pair) for pair in pairs]
    return calls


def fake_quantizers(
    ws: list[Tensor], scales: list[Tensor], compiled: bool, bits: float = 2
) -> dict[str, Call]:
    """Values of every weight: calls by name."""
    pairs = list(zip(ws, scales, strict=True))
    out = [torch.empty_like(w) for w in ws]

    def in_place() -> list[Tensor]:
        for (w, scale), into in zip(pairs, out, strict=True):
            torch.mul(w, 1 / scale, out=into)
            nearest_(into, bits).mul_(scale)
        return out

    return each(lambda w, scale: on_grid(w, scale, bits), pairs, in_place, compiled)


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


def norms(
    grads: list[Tensor], scales: list[Tensor], radius: float, compiled: bool
) -> dict[str, Call]:
    """The norm of all g * e * a: calls by name."""
    room = [torch.empty_like(g) for g in grads]

    def one(grads: list[Tensor], scales: list[Tensor]) -> Tensor:
        whitened = [g * (a * radius) for g, a in zip(grads, scales, strict=True)]
        return torch.stack([w.square().sum() for w in whitened]).sum().sqrt()

    def in_place() -> Tensor:
        for g, a, into in zip(grads, scales, room, strict=True):
            torch.mul(g, a * radius, out=into)
        return torch.stack(torch._foreach_norm(room)).norm()

    def by_rows() -> Tensor:
        squares = [
            torch.linalg.vector_norm(g, dim=1, keepdim=True).mul_(a)
            for g, a in zip(grads, scales, strict=True)
        ]
        return torch.stack(torch._foreach_norm(squares)).norm() * radius

    calls: dict[str, Call] = {
        "eager": lambda: one(grads, scales),
        "eager, in place": in_place,
        "eager, norms of rows": by_rows,
    }
    if compiled:
        fused = torch.compile(one, dynamic=False)
        calls["compile"] = lambda: fused(grads, scales)
    return calls


def hadamard_matrix(size: int, device: torch.device) -> Tensor:
    """Sylvester's matrix, orthonormal, [size, size]."""
    matrix = torch.ones(1, 1, device=device)
    while len(matrix) < size:
        matrix = torch.cat([torch.cat([matrix, matrix], 1), torch.cat([matrix, -matrix], 1)])
    return matrix * size**-0.5


def rotations(x: Tensor, block: int) -> dict[str, Call]:
    """Blocks of a row times the dense Hadamard matrix: calls by name."""
    matrix = hadamard_matrix(block, x.device)
    blocks = x.view(-1, block)
    out = torch.empty_like(blocks)
    return {
        "eager matmul": lambda: (blocks @ matrix).view(x.shape),
        "eager matmul, preallocated": lambda: torch.mm(blocks, matrix, out=out).view(x.shape),
    }


def activation_quantizers(x: Tensor, compiled: bool) -> dict[str, Call]:
    """int8 codes and a scale a row: calls by name."""

    def one(x: Tensor) -> tuple[Tensor, Tensor]:
        x = x.float()
        scale = x.abs().amax(-1, keepdim=True) / 127
        return (x / scale).round().clamp(-127, 127).to(torch.int8), scale[..., 0]

    room, out = torch.empty(x.shape), torch.empty(x.shape, dtype=torch.int8)

    def in_place() -> tuple[Tensor, Tensor]:
        scale = torch.linalg.vector_norm(x, float("inf"), -1, keepdim=True).float() / 127
        torch.div(x, scale, out=room)
        return out.copy_(room.round_()), scale[..., 0]

    calls: dict[str, Call] = {"eager": lambda: one(x), "eager, in place": in_place}
    if compiled:
        fused = torch.compile(one, dynamic=False)
        calls["compile"] = lambda: fused(x)
    return calls
