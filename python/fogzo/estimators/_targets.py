"""The weights that probes perturb, and how a probe's weight takes their place in one forward."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..layers.coded_weight import CodedWeight
from ..layers.layout import Holder, Layout
from ..layers.quant_layer import QuantLayer
from ..layers.scales import check_latent

FLOAT_RADIUS = 1e-3
InPlace = Tensor | CodedWeight  # what may stand for a weight


class QuantTarget:
    """A quantized weight: its layers take a probe's values in place of Q(W).

    Attributes:
        form: of its factors in probes: "packed" codes where inputs are integers, else "values".
        act_bits: of the inputs in probes, of layers that have none of their own; None: floats.
        integers: whether some of its layers multiply integers in every forward.
        changes: whether some of them do in probes alone.
    """

    def __init__(
        self, name: str, number: int, layers: Sequence[QuantLayer], act_bits: int | None
    ) -> None:
        self.name, self.number, self.layers = name, number, layers
        own = [layer.act_bits for layer in layers if layer.multiplies]
        self.integers = any(bits is not None for bits in own)
        self.changes = act_bits is not None and None in own
        self.act_bits = act_bits
        self.form = "packed" if self.integers or self.changes else "values"
        self.grid: fk.Grid | None = layers[0].grid
        self.surrogate = layers[0].surrogate
        config = layers[0].config
        self.learned = config.learned is not None
        self.scale_moves = config.dynamic or self.learned
        self._frozen_rows = sorted(frozenset.intersection(*(each.frozen_rows for each in layers)))
        self._parameters = layers[0]._parameters

    @property
    def weight(self) -> Tensor:
        weight = self._parameters["weight"]
        assert weight is not None
        return weight

    @property
    def scale(self) -> Tensor:
        return self.layers[0].frozen_scale()

    @property
    def enabled(self) -> bool:
        """Whether it is quantized now, wherever it is used.

        Of a tied weight that one layer uses as W itself no probe sees the whole slope.
        """
        return all(layer.enabled for layer in self.layers)

    def latent(self) -> Tensor:
        """W as the operations take it: [N, K], in the space where its grid lies."""
        return self.to_probe_space(self.weight)

    def to_probe_space(self, tensor: Tensor) -> Tensor:
        return self.layers[0].probe_space(tensor)

    def from_probe_space(self, rows: Tensor) -> Tensor:
        """G as W's gradient."""
        gradient = self.layers[0].from_probe_space(rows)
        for row in self._frozen_rows:  # a list as index would be copied to the device
            gradient[row].zero_()
        return gradient

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
        with torch.no_grad():
            codes: Tensor = fk.quantize(self.latent().detach(), self.scale, self.grid)
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
    scale_moves = learned = False
    enabled = True
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

    def latent(self) -> Tensor:
        return as_rows(self.weight)

    def to_probe_space(self, tensor: Tensor) -> Tensor:
        return as_rows(tensor)

    def from_probe_space(self, rows: Tensor) -> Tensor:
        return rows.view(self.weight.shape)

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

    But learned scales: they are frozen in probes, and keep their back-propagated gradient.

    ``act_bits``: what probes quantize the inputs of quantized layers to.
    """
    layout = Layout(model)
    targets: list[Target] = []
    for name, layers in layout.quantized():
        check_latent(layers[0].weight, op, name)
        check_tied(op, name, layout.holders[id(layers[0].weight)])
        targets.append(QuantTarget(name, len(targets), layers, act_bits))
    if everything:
        quantized, scales = {target.name for target in targets}, layout.learned_scales()
        for name, parameter in layout.parameters.items():
            if name not in quantized and id(parameter) not in scales:
                holders = layout.holders[id(parameter)]
                targets.append(FloatTarget(op, name, len(targets), holders, noise))
    return targets


def check_tied(op: str, name: str, holders: Sequence[Holder]) -> None:
    """Refuse a weight that does not mean one Q(W) wherever it is held: a probe has no other."""
    if len(holders) == 1:
        return
    first = next(h.module for h in holders if isinstance(h.module, QuantLayer))
    for holder in holders:
        module = holder.module
        if not isinstance(module, QuantLayer) or holder.key != "weight":
            other = "which stays float"
        elif module.config != first.config:
            other = "which has another config"
        elif not have_one_scale(first, module):
            other = "which has another scale"
        else:
            continue
        expected = "one Q(W) for one weight: tie layers before quantize_, which gives them one"
        _check.fail(op, name, f"is shared with {holder.path}, {other}", expected)


def have_one_scale(layer: QuantLayer, other: QuantLayer) -> bool:
    """Of two with one config and one weight; buffers by value: ``model.to()`` may split them."""
    learned = layer.config.learned
    if learned is not None:
        return layer._parameters[learned] is other._parameters[learned]
    same = layer.config.dynamic or layer.scale is other.scale
    return same or torch.equal(layer.scale, other.scale)


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
