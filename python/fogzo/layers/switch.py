"""Quantization switched off and on: delayed quantization, a look at the float model."""

from __future__ import annotations

from collections.abc import Iterator

from torch import nn

from fogzo_kernels import _check

from .layout import check_model
from .quant_layer import QuantLayer


def disable_quantization(model: nn.Module) -> nn.Module:
    """Let the quantized layers of ``model`` compute with W, as the float layers they were.

    The latent weights, their scales and the optimizer stay; ``state_dict()`` remembers it. The
    estimators run a plain forward and backward for such weights: no probe perturbs them.

    Args:
        model: with quantized layers; a part of a model too.

    Returns:
        ``model``.

    Raises:
        ValueError: no quantized layer. TypeError: no nn.Module.

    Example:
        >>> disable_quantization(model)(x)  # warm up in float ..
        >>> enable_quantization(model, rescale=True)  # .. then quantize what came of it
    """
    for layer in _layers("disable_quantization", model):
        layer.enabled = False
    return model


def enable_quantization(model: nn.Module, rescale: bool = False) -> nn.Module:
    """Let the quantized layers of ``model`` quantize again.

    Args:
        model: with quantized layers; a part of a model too.
        rescale: compute fixed and learned scales anew from the present weights, in layers that
            were disabled: what a float training before needs. False keeps them.

    Returns:
        ``model``.

    Raises:
        ValueError: no quantized layer, or (rescale) a weight that is not finite. TypeError: no
            nn.Module.

    Example:
        >>> enable_quantization(model)
    """
    seen: set[int] = set()
    for layer in _layers("enable_quantization", model):
        if rescale and not layer.enabled and id(layer.scale) not in seen:
            layer.rescale()
            seen.add(id(layer.scale))
        layer.enabled = True
    return model


def _layers(op: str, model: nn.Module) -> Iterator[QuantLayer]:
    check_model(op, model)
    layers = [module for module in model.modules() if isinstance(module, QuantLayer)]
    if not layers:
        _check.fail(op, "model", "has no quantized layer", "fogzo.quantize_(model, config) first")
    return iter(layers)
