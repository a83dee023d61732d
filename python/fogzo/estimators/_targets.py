"""The weights that probes perturb, and how a probe's weight takes their place in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..layers.layout import Holder, Layout
from ..layers.quant_linear import QuantLinear, check_latent

FLOAT_RADIUS = 1e-3


class QuantTarget:
    """A quantized weight: its layers take a probe's values in place of Q(W)."""

    def __init__(self, name: str, number: int, layers: Sequence[QuantLinear]) -> None:
        self.name, self.number, self.layers = name, number, layers
        self.grid: fk.Grid | None = layers[0].grid
        self.surrogate = layers[0].surrogate
        self.scale_moves = layers[0].config.dynamic
        self._tables = layers[0]._parameters, layers[0]._buffers

    @property
    def weight(self) -> Tensor:
        weight = self._tables[0]["weight"]
        assert weight is not None
        return weight

    @property
    def scale(self) -> Tensor:
        scale = self._tables[1]["scale"]
        assert scale is not None
        return scale

    def put(self, values: Tensor) -> None:
        for layer in self.layers:
            layer.__dict__["_probe_weight"] = values

    def clear(self) -> None:
        for layer in self.layers:
            layer.__dict__["_probe_weight"] = None

    def forget_reads(self) -> None:
        for layer in self.layers:
            layer.__dict__["_was_read"] = False

    @property
    def was_read(self) -> bool:
        return any(layer._was_read for layer in self.layers)


class FloatTarget:
    """A parameter that stays float, perturbed by ``everything=True``: radius 1e-3, no rounding."""

    grid: fk.Grid | None = None
    surrogate = "identity"
    scale_moves = False
    was_read = True  # a float parameter does not tell

    def __init__(
        self, op: str, name: str, number: int, holders: Sequence[Holder], noise: str
    ) -> None:
        self.name, self.number, self.holders = name, number, holders
        parameter = holders[0].module._parameters[holders[0].key]
        assert parameter is not None
        if parameter.dtype is not torch.float32:
            got = f"has dtype {str(parameter.dtype).removeprefix('torch.')}"
            _check.fail(op, name, got, "float32 for everything=True", TypeError)
        self.weight: nn.Parameter = parameter
        # radius * scale, the unit of u, is then FLOAT_RADIUS
        self._scale = FLOAT_RADIUS / fk.radius(self.surrogate, noise)

    @property
    def scale(self) -> Tensor:
        return torch.full((), self._scale, dtype=torch.float32, device=self.weight.device)

    def put(self, values: Tensor) -> None:
        values = values.view(self.weight.shape)
        for holder in self.holders:
            # a plain tensor may stand in a module's table; nothing is written into the parameter
            holder.module._parameters[holder.key] = values  # type: ignore[assignment]

    def clear(self) -> None:
        for holder in self.holders:
            holder.module._parameters[holder.key] = self.weight

    def forget_reads(self) -> None:
        pass


Target = QuantTarget | FloatTarget


def find_targets(op: str, model: nn.Module, everything: bool, noise: str) -> list[Target]:
    """Quantized weights in named_parameters() order, then, for ``everything``, all others."""
    layout = Layout(model)
    targets: list[Target] = []
    for name, layers in layout.quantized():
        check_latent(layers[0].weight, op, name)
        targets.append(QuantTarget(name, len(targets), layers))
    if everything:
        quantized = {target.name for target in targets}
        for name, parameter in layout.parameters.items():
            if name not in quantized:
                holders = layout.holders[id(parameter)]
                targets.append(FloatTarget(op, name, len(targets), holders, noise))
    return targets


class InPlaceOfWeights:
    """Let the forward inside a ``with`` use ``values`` for the targets' weights."""

    def __init__(self, targets: Sequence[Target], values: Sequence[Tensor]) -> None:
        self._targets, self._values = targets, values

    def __enter__(self) -> None:
        for target, value in zip(self._targets, self._values, strict=True):
            target.put(value)

    def __exit__(self, *_: object) -> None:
        for target in self._targets:
            target.clear()


def as_rows(tensor: Tensor) -> Tensor:
    """A 0-dim tensor as [1]: the operations take one dimension or more."""
    return tensor.view(1) if tensor.dim() == 0 else tensor
