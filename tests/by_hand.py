"""Losses of probes by a slow loop: copies of the model with plain layers of perturbed weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, QuantLinear
from fogzo.estimators._targets import FLOAT_RADIUS

Closure = Callable[[], Tensor]


class Plain(nn.Module):
    """y = x^ @ weight.T + bias; x^ by DESIGN's rule for so many bits."""

    def __init__(self, weight: Tensor, bias: Tensor | None, act_bits: int | None) -> None:
        super().__init__()
        self.weight, self.bias, self.act_bits = weight, bias, act_bits

    def forward(self, x: Tensor) -> Tensor:
        if self.act_bits is None:
            return torch.nn.functional.linear(x, self.weight, self.bias)
        device = x.device.type
        out = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        q = 2 ** (self.act_bits - 1) - 1
        values = x.float() if x.dtype is not torch.float64 else x
        a = values.abs().amax(-1, keepdim=True) / q
        codes = (values / a).round().clamp(-q, q).nan_to_num(0)
        with torch.autocast(device, enabled=False):
            y = (codes * a).double() @ self.weight.double().T
            return (y if self.bias is None else y + self.bias).to(out)


def guides_of(model: nn.Module, closure_of: Callable[[nn.Module], Closure]) -> dict[str, Tensor]:
    """The straight-through gradient of each parameter that has one, taken on a copy."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    closure_of(twin)().backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}


def quantized(model: nn.Module) -> dict[str, list[tuple[str, QuantLinear]]]:
    """Name of each quantized weight, and the layers that hold it, by their names."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, list[tuple[str, QuantLinear]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantLinear):
            found.setdefault(names[id(module.weight)], []).append((name, module))
    return {name: found[name] for name in names.values() if name in found}


@contextmanager
def same_random_numbers(state: Tensor) -> Iterator[None]:
    now = torch.get_rng_state()
    torch.set_rng_state(state)
    try:
        yield
    finally:
        torch.set_rng_state(now)


def losses(
    model: nn.Module,
    est: FOGZO | NSPSA,
    closure_of: Callable[[nn.Module], Closure],
    guides: dict[str, Tensor],
    state: Tensor,
    *,
    norm: Any,
    step: int = 0,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """float64 [n, 2], as ``last.losses``.

    Args:
        model: as it was before the call, with its buffers.
        closure_of: the forward of the probes (of their rows) for a model.
        guides: by name; the weights to perturb.
        state: random state that each forward starts from.
        norm: N. step: calls before. dtype: of the forwards.
    """
    layers = quantized(model)
    order = [*layers, *(n for n, _ in model.named_parameters() if n not in layers)]
    parameters = dict(model.named_parameters())
    sides = {"central": "both", "forward": "plus"}[est.difference]
    perturbed: dict[str, Tensor] = {}
    for number, name in enumerate(order):
        if name not in guides or (name not in layers and not est.everything):
            continue
        layer = layers[name][0][1] if name in layers else None
        if layer is not None and layer.config.dynamic:  # the scale of this step's forward
            layer = copy.deepcopy(layer)
            layer.quantized_weight()
        surrogate = "identity" if layer is None else layer.surrogate
        radius = FLOAT_RADIUS / fk.radius("identity", est.noise)
        w = parameters[name].detach()
        with fk.use_backend("reference"):
            values = fk.perturb_quantize(
                w if w.dim() else w.view(1),
                guides[name] if w.dim() else guides[name].view(1),
                torch.tensor(radius) if layer is None else layer.scale,
                None if layer is None else layer.grid,
                surrogate,
                probes=est.probes,
                seed=est.seed,
                step=step,
                tensor=number,
                gamma=1.0 if isinstance(est, NSPSA) else est.last.gamma,
                norm=norm,
                noise=est.noise,
                sides=sides,
            )
        perturbed[name] = values.view(len(values), *w.shape)
    count = len(next(iter(perturbed.values())))
    entries = [{name: values[i] for name, values in perturbed.items()} for i in range(count)]
    found = [_loss(model, est, closure_of, entry, state, dtype) for entry in entries]
    if sides == "plus":
        base = _loss(model, est, closure_of, {}, state, dtype)
        found = [loss for plus in found for loss in (plus, base)]
    return torch.tensor(found, dtype=torch.float64).view(-1, 2)


def _loss(
    model: nn.Module,
    est: FOGZO | NSPSA,
    closure_of: Callable[[nn.Module], Closure],
    entry: dict[str, Tensor],
    state: Tensor,
    dtype: torch.dtype,
) -> float:
    with torch.no_grad():
        twin = copy.deepcopy(model)
        for name, parameter in twin.named_parameters():
            if name in entry:
                parameter.copy_(entry[name])
        for name, owners in quantized(twin).items():
            for path, layer in owners:
                values = entry.get(name)
                values = layer.quantized_weight() if values is None else values
                own = layer.config.act_bits
                bits = 8 if own is None and est.probe_dtype == "int8" else own
                bias = layer.bias
                if dtype is torch.float64 and bias is not None:
                    bias = bias.double()
                plain = Plain(values.to(dtype), bias, bits)
                parent, _, key = path.rpartition(".")
                setattr(twin.get_submodule(parent), key, plain)
        twin.to(dtype)
        with same_random_numbers(state):
            return closure_of(twin)().double().item()
