"""Which module holds which parameter, and what keeps a weight from being quantized."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from typing import NamedTuple

from torch import nn

from fogzo_kernels import _check

from .kinds import why_float
from .quant_layer import QuantLayer


class Holder(NamedTuple):
    """One place where a module keeps a parameter; a tied parameter has several."""

    name: str
    module: nn.Module
    key: str

    @property
    def path(self) -> str:
        return f"{self.name}.{self.key}" if self.name else self.key


def check_model(op: str, model: object) -> None:
    if not isinstance(model, nn.Module):
        got = f"is a {type(model).__name__}"
        _check.fail(op, "model", got, "a torch.nn.Module", TypeError)


class Layout:
    """The parameters of a model by the places that hold them."""

    def __init__(self, model: nn.Module) -> None:
        self.holders: dict[int, list[Holder]] = {}
        self._attention_outputs: set[int] = set()
        for name, module in model.named_modules():
            if isinstance(module, nn.MultiheadAttention):
                self._attention_outputs.add(id(module.out_proj))
            for key, parameter in module._parameters.items():
                if parameter is not None:
                    holder = Holder(name, module, key)
                    self.holders.setdefault(id(parameter), []).append(holder)
        self.parameters: dict[str, nn.Parameter] = dict(model.named_parameters())

    def quantized(self) -> Iterator[tuple[str, list[QuantLayer]]]:
        """Each quantized weight in named_parameters() order, and the layers that hold it."""
        for name, parameter in self.parameters.items():
            holders = self.holders[id(parameter)]
            layers = [
                h.module for h in holders if isinstance(h.module, QuantLayer) and h.key == "weight"
            ]
            if layers:
                yield name, layers

    def learned_scales(self) -> set[int]:
        """ids of the parameters that learned scales are; probes leave them as they are."""
        return {
            key
            for key, holders in self.holders.items()
            for _, module, name in holders
            if isinstance(module, QuantLayer) and name == module.config.learned
        }

    def why_float(self, holder: Holder, wanted: Collection[str] | None = None) -> str | None:
        """What keeps this weight float, None where nothing does.

        ``wanted``: names of the modules to quantize, None for all; a weight is quantized only
        where everything that holds it is.
        """
        own = self._why_not(holder)
        if own is not None:
            return own
        parameter = holder.module._parameters[holder.key]
        for other in self.holders[id(parameter)]:
            if isinstance(other.module, QuantLayer):
                return f"shared with {other.path}, which was quantized before"
            unwanted = wanted is not None and other.name not in wanted
            if unwanted or self._why_not(other) is not None:
                return f"shared with {other.path}, which stays float"
        return None

    def _why_not(self, holder: Holder) -> str | None:
        module = holder.module
        if id(module) in self._attention_outputs:
            return "nn.MultiheadAttention reads out_proj.weight without calling out_proj"
        if isinstance(module, QuantLayer) and holder.key == module.config.learned:
            return f"{holder.key}: learned, the weight's scale"
        if holder.key != "weight" and not isinstance(module, nn.MultiheadAttention):
            return f"{holder.key}: only the weight of a layer is quantized"
        return why_float(module)
