"""The torch layers that can be quantized, and what each becomes."""

from __future__ import annotations

from torch import nn

from .quant_conv import QuantConv1d, QuantConv2d
from .quant_embedding import QuantEmbedding
from .quant_layer import QuantLayer
from .quant_linear import QuantLinear

KINDS: tuple[type[QuantLayer], ...] = (QuantLinear, QuantConv1d, QuantConv2d, QuantEmbedding)
NAMES = "nn.Linear, nn.Conv1d, nn.Conv2d or nn.Embedding"


def kind_of(module: nn.Module) -> type[QuantLayer] | None:
    """What a float layer would become; its subclasses' behaviour is their own business."""
    if isinstance(module, QuantLayer):
        return None
    return next((kind for kind in KINDS if isinstance(module, kind.float_class)), None)


def why_float(module: nn.Module) -> str | None:
    """What keeps a module's weight float, None where nothing of its own does."""
    kind = kind_of(module)
    if kind is None:
        return f"{type(module).__name__}: only the weight of {NAMES} is quantized"
    name = f"nn.{kind.float_class.__name__}"
    if type(module) is not kind.float_class:
        return f"{type(module).__name__}: a subclass of {name} with its own behaviour"
    why = kind.why_not(module)
    return None if why is None else f"{name}: {why[0]} {why[1]}"
