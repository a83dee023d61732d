"""Losses of probes by a slow loop: copies of the model with plain layers of perturbed weights."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, QuantConv2d, QuantEmbedding, QuantLinear
from fogzo.estimators._targets import FLOAT_RADIUS
from fogzo.layers.quant_layer import QuantLayer

Closure = Callable[[], Tensor]


class Plain(nn.Module):
    """A layer of given float weights; its input is quantized by DESIGN's rule for so many bits.

    Args:
        layer: what it stands for. values: Q(W), [N, K], rotated where the layer rotates.
        act_bits: of its input; None: floats. dtype: of all it computes.
    """

    def __init__(
        self, layer: QuantLayer, values: Tensor, act_bits: int | None, dtype: torch.dtype
    ) -> None:
        super().__init__()
        self.layer, self.act_bits = layer, None if isinstance(layer, QuantEmbedding) else act_bits
        self.values = values.to(dtype)
        # an embedding looks up what it then rotates back
        self.rotates = layer.config.rotated
        self.bias = None if isinstance(layer, QuantEmbedding) or layer.bias is None else layer.bias
        self.weight = layer.weight  # what models ask the dtype of

    def forward(self, x: Tensor) -> Tensor:
        layer = self.layer
        bias = None if self.bias is None else self.bias.to(self.values.dtype)
        if isinstance(layer, QuantEmbedding):
            rows = F.embedding(x, self.values)
            return fk.hadamard(rows.float()).to(rows.dtype) if self.rotates else rows
        if self.act_bits is None and not self.rotates:
            if isinstance(layer, QuantLinear):
                return F.linear(x, self.values, bias)
            return layer._conv_forward(x, self.values.view(layer.weight.shape), bias)
        if isinstance(layer, QuantLinear):
            return self._product(x, bias)
        assert isinstance(layer, QuantConv2d)
        assert layer.groups == 1
        assert layer.padding_mode == "zeros"
        patches = F.unfold(x, layer.kernel_size, layer.dilation, layer.padding, layer.stride)
        y = self._product(patches.transpose(1, 2), bias).transpose(1, 2)
        size = [
            (n + 2 * p - d * (k - 1) - 1) // s + 1
            for n, p, d, k, s in zip(
                x.shape[2:], layer.padding, layer.dilation, layer.kernel_size, layer.stride,
                strict=True,
            )
        ]  # fmt: skip
        return y.reshape(len(x), -1, *size)

    def _product(self, x: Tensor, bias: Tensor | None) -> Tensor:
        device = x.device.type
        out = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
        if self.rotates:
            x = fk.hadamard(x.float()).to(self.values.dtype)
        if self.act_bits is None:
            return F.linear(x, self.values, bias)
        q = 2 ** (self.act_bits - 1) - 1
        x = x.float() if x.dtype is not torch.float64 else x
        a = x.abs().amax(-1, keepdim=True) / q
        codes = (x / a).round().clamp(-q, q).nan_to_num(0)
        with torch.autocast(device, enabled=False):
            y = (codes * a).double() @ self.values.double().T
            return (y if bias is None else y + bias).to(out)


def guides_of(model: nn.Module, closure_of: Callable[[nn.Module], Closure]) -> dict[str, Tensor]:
    """The straight-through gradient of each parameter that has one, taken on a copy."""
    twin = copy.deepcopy(model)
    twin.zero_grad()
    closure_of(twin)().backward()
    return {name: p.grad for name, p in twin.named_parameters() if p.grad is not None}


def quantized(model: nn.Module) -> dict[str, list[tuple[str, QuantLayer]]]:
    """Name of each quantized weight, and the layers that hold it, by their names."""
    names = {id(p): name for name, p in model.named_parameters()}
    found: dict[str, list[tuple[str, QuantLayer]]] = {}
    for name, module in model.named_modules():
        if isinstance(module, QuantLayer):
            found.setdefault(names[id(module.weight)], []).append((name, module))
    return {name: found[name] for name in names.values() if name in found}


def as_rows(tensor: Tensor, layer: QuantLayer | None) -> Tensor:
    """[N, K] where a layer's grid lies, or a parameter that no layer quantizes."""
    if layer is not None:
        return layer.probe_space(tensor)
    return tensor if tensor.dim() else tensor.view(1)


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
    paths = [path for each in layers.values() for path, _ in each]
    learned = {f"{path}.{key}" for path in paths for key in ("scale", "alpha")}
    others = (n for n, _ in model.named_parameters() if n not in layers and n not in learned)
    order = [*layers, *others]
    parameters = dict(model.named_parameters())
    sides = {"central": "both", "forward": "plus"}[est.difference]
    perturbed: dict[str, Tensor] = {}
    for number, name in enumerate(order):
        if name not in guides or (name not in layers and not est.everything):
            continue
        layer = layers[name][0][1] if name in layers else None
        if layer is not None:
            layer = copy.deepcopy(layer)
            layer.quantized_weight()  # the scale of this step's forward
        surrogate = "identity" if layer is None else layer.surrogate
        radius = FLOAT_RADIUS / fk.radius("identity", est.noise)
        w = parameters[name].detach()
        with fk.use_backend("reference"), torch.no_grad():
            values = fk.perturb_quantize(
                as_rows(w, layer),
                as_rows(guides[name], layer),
                torch.tensor(radius) if layer is None else layer.frozen_scale(),
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
        perturbed[name] = values
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
        layers = quantized(twin)
        for name, parameter in twin.named_parameters():
            if name in entry and name not in layers:
                parameter.copy_(entry[name].view(parameter.shape))
        for name, owners in layers.items():
            for path, layer in owners:
                values = entry.get(name)
                if values is None:
                    values = as_rows(layer.from_probe_space(layer.quantized_weight()), layer)
                own = layer.config.act_bits
                bits = 8 if own is None and est.probe_dtype == "int8" else own
                parent, _, key = path.rpartition(".")
                setattr(twin.get_submodule(parent), key, Plain(layer, values, bits, dtype))
        twin.to(dtype)
        with same_random_numbers(state):
            return closure_of(twin)().double().item()
