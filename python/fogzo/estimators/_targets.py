"""The weights that probes perturb, and how a probe's weight takes their place in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..layers.layout import Holder, Layout
from ..layers.quant_linear import CodedWeight, QuantLinear, check_latent

FLOAT_RADIUS = 1e-3
InPlace = Tensor | CodedWeight  # what may stand for a weight


class QuantTarget:
    """A quantized weight: its layers take a probe's values in place of Q(W).

    Attributes:
        form: of its perturbed weights, "packed" where integers are multiplied, else "values".
        act_bits: of the inputs in probes, of layers that have none of their own; None: floats.
        integers: whether some of its layers multiply integers in every forward.
        changes: whether some of them do in probes alone.
    """

    def __init__(
        self, name: str, number: int, layers: Sequence[QuantLinear], act_bits: int | None
    ) -> None:
        self.name, self.number, self.layers = name, number, layers
        own = [layer.config.act_bits for layer in layers]
        self.integers = any(bits is not None for bits in own)
        self.changes = act_bits is not None and None in own
        self.act_bits = act_bits
        self.form = "packed" if self.integers or act_bits is not None else "values"
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

    def coded(
        self,
        codes: Tensor | fk.Packed,
        scale: Tensor,
        in_probe: bool = True,
        as_values: bool = False,
    ) -> CodedWeight:
        """Codes of this weight for its layers; ``as_values``: floats multiply their values."""
        assert self.grid is not None
        act_bits = self.act_bits if in_probe else None
        return CodedWeight(codes, scale, self.grid, act_bits, as_values)

    def unperturbed(self, in_probe: bool = True) -> CodedWeight:
        """The codes of W itself, with the scale of the last forward."""
        assert self.grid is not None
        codes: Tensor = fk.quantize(self.weight.detach(), self.scale, self.grid)
        return self.coded(codes, self.scale, in_probe)

    def put(self, given: InPlace) -> None:
        for layer in self.layers:
            layer.__dict__["_probe_weight"] = given

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
    form = "values"
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

    def put(self, given: InPlace) -> None:
        assert isinstance(given, Tensor)
        values = given.view(self.weight.shape)
        for holder in self.holders:
            # a plain tensor may stand in a module's table; nothing is written into the parameter
            holder.module._parameters[holder.key] = values  # type: ignore[assignment]

    def clear(self) -> None:
        for holder in self.holders:
            holder.module._parameters[holder.key] = self.weight

    def forget_reads(self) -> None:
        pass


Target = QuantTarget | FloatTarget


def find_targets(
    op: str, model: nn.Module, everything: bool, noise: str, act_bits: int | None = None
) -> list[Target]:
    """Quantized weights in named_parameters() order, then, for ``everything``, all others.

    ``act_bits``: what probes quantize the inputs of quantized layers to.
    """
    layout = Layout(model)
    targets: list[Target] = []
    for name, layers in layout.quantized():
        check_latent(layers[0].weight, op, name)
        targets.append(QuantTarget(name, len(targets), layers, act_bits))
    if everything:
        quantized = {target.name for target in targets}
        for name, parameter in layout.parameters.items():
            if name not in quantized:
                holders = layout.holders[id(parameter)]
                targets.append(FloatTarget(op, name, len(targets), holders, noise))
    return targets


class InPlaceOfWeights:
    """Let the forward inside a ``with`` use ``values`` for the targets' weights."""

    def __init__(self, targets: Sequence[Target], values: Sequence[InPlace]) -> None:
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
