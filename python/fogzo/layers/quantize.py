"""Quantize the linear layers of a model in place."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from fogzo_kernels import _check

from .config import QuantConfig, given_config
from .fast_path import disable_fast_path
from .layout import Holder, Layout, check_model
from .quant_linear import QuantLinear, become_quantized, check_latent, initial_scale


def quantize_(
    model: nn.Module,
    config: QuantConfig | None = None,
    filter_fn: Callable[[nn.Module, str], bool] = lambda module, fqn: True,
) -> nn.Module:
    """Turn the selected nn.Linear layers of ``model`` into QuantLinear, in place.

    Modules and parameters stay the same objects: hooks and an optimizer made before keep working.
    Tied layers stay tied and get one scale. A weight that something else holds too (an
    nn.Embedding, a layer that was not selected) stays float; so does nn.MultiheadAttention's
    out_proj, which is never called. ``summary(model)`` says what stayed float and why. Another
    call with another filter gives other layers another config.

    Args:
        model: any nn.Module, itself an nn.Linear too.
        config: how; None is QuantConfig().
        filter_fn: called with each nn.Linear and its name; False leaves it float.

    Returns:
        ``model``.

    Raises:
        ValueError: nothing to quantize, a group_size that does not divide a layer's inputs, or a
            weight that is not finite.
        TypeError: a half-precision weight, or an argument of another type. Nothing has been
            changed then.

    Example:
        >>> quantize_(nn.Sequential(nn.Linear(4, 2)), QuantConfig(bits=2))[0].grid.bits
        2
    """
    config = given_config("quantize_", config)
    check_model("quantize_", model)
    if not callable(filter_fn):
        got = f"is {filter_fn!r}"
        _check.fail("quantize_", "filter_fn", got, "a function of a module and its name", TypeError)
    layout = Layout(model)
    wanted = {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear)
        and not isinstance(module, QuantLinear)
        and filter_fn(module, name)
    }
    chosen: list[tuple[nn.Linear, Tensor]] = []
    scales: dict[int, Tensor] = {}
    refused: list[str] = []
    for name, module in wanted.items():
        holder = Holder(name, module, "weight")
        why = layout.why_float(holder, wanted)
        if why is not None:
            refused.append(f"{holder.path}: {why}")
            continue
        weight = module.weight
        if id(weight) not in scales:
            scales[id(weight)] = _first_scale(weight, config, holder.path)
        chosen.append((module, scales[id(weight)]))
    if not chosen:
        got = "has nothing to quantize" + (f" ({'; '.join(refused)})" if refused else "")
        _check.fail("quantize_", "model", got, "at least one nn.Linear that filter_fn selects")
    for module, scale in chosen:
        become_quantized(module, config, scale)
    disable_fast_path(model)
    return model


def _first_scale(weight: Tensor, config: QuantConfig, name: str) -> Tensor:
    check_latent(weight, "quantize_", name)
    if not weight.numel():
        got = f"has shape {tuple(weight.shape)}"
        _check.fail("quantize_", name, got, "at least one element")
    if not weight.is_meta and not torch.isfinite(weight).all():
        _check.fail("quantize_", name, "has values that are not finite", "finite numbers")
    return initial_scale(weight, config, "quantize_", name)
