"""Quantized layers through torchao's ``quantize_``; importing this registers them there."""

from __future__ import annotations

from dataclasses import dataclass, field

from torch import Tensor, nn

try:
    from torchao.core.config import AOBaseConfig
    from torchao.quantization.transform_module import register_quantize_module_handler
except ImportError as error:
    text = f"fogzo.integrations.torchao needs torchao ({error}): pip install torchao"
    raise ImportError(text, name=error.name) from error

from fogzo_kernels import _check

from ..layers.config import QuantConfig, given_config
from ..layers.kinds import kind_of, why_float
from ..layers.layout import check_model
from ..layers.quant_layer import QuantLayer, become_quantized
from ..layers.quantize import first_scale


@dataclass
class FogzoConfig(AOBaseConfig):
    """A QuantConfig as torchao takes it.

    torchao shows layers one at a time: a weight that a layer shares with one that is not selected
    becomes quantized in the one alone. Tied layers that are both selected get one scale, as long
    as both calls are given the same FogzoConfig. Models with nn.TransformerEncoderLayer need
    ``fogzo.quantize_``, which keeps its fused eval-mode kernel off.

    Args:
        config: how; None is QuantConfig().

    Raises:
        TypeError: no QuantConfig.

    Example:
        >>> torchao.quantization.quantize_(model, FogzoConfig(fogzo.QuantConfig(bits=2)))
    """

    config: QuantConfig | None = None
    # by the id of a weight: it, so that no other one gets its id, its version, and its scale
    _seen: dict[int, tuple[Tensor, int, dict[str, Tensor]]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def __post_init__(self) -> None:
        self.config = given_config("FogzoConfig", self.config)


@register_quantize_module_handler(FogzoConfig)
def _quantize(module: nn.Module, config: FogzoConfig) -> nn.Module:
    """The handler: the layer in place; another module is refused by name."""
    op = "torchao.quantize_"
    check_model(op, module)
    if isinstance(module, QuantLayer):
        got = f"is a {type(module).__name__}, which is quantized already"
        _check.fail(op, "module", got, "a float layer: choose with filter_fn")
    kind, why = kind_of(module), why_float(module)
    if kind is None or why is not None:
        _check.fail(op, "module", f"is a {why}", "a layer that filter_fn selects for its weight")
    weight = module.weight
    assert isinstance(weight, Tensor)
    how = given_config(op, config.config)
    seen = config._seen.get(id(weight))
    if seen is None or seen[1] != weight._version:  # trained since: another scale
        tensors = first_scale(weight, how, f"{type(module).__name__}.weight", [module])
        seen = config._seen[id(weight)] = weight, weight._version, tensors
    return become_quantized(module, kind, how, seen[2])
