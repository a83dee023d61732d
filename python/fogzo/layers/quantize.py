"""Quantize the layers of a model in place."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TypeVar

import torch
from torch import Tensor, nn

from fogzo_kernels import _check

from .config import QuantConfig, given_config
from .fast_path import disable_fast_path
from .kinds import NAMES, kind_of
from .layout import Holder, Layout, check_model
from .quant_layer import QuantLayer, become_quantized
from .scales import as_rows, check_latent, scale_tensors

Model = TypeVar("Model", bound=nn.Module)


def quantize_(
    model: Model,
    config: QuantConfig | None = None,
    filter_fn: Callable[[nn.Module, str], bool] = lambda module, fqn: True,
    overrides: Mapping[str, QuantConfig | None] | None = None,
) -> Model:
    """Turn the selected layers of ``model`` into quantized ones, in place.

    nn.Linear, nn.Conv1d, nn.Conv2d and nn.Embedding become QuantLinear, QuantConv1d, QuantConv2d
    and QuantEmbedding. Modules and parameters stay the same objects: hooks and an optimizer made
    before keep working (but learned scales are new parameters: make the optimizer afterwards).
    Tied layers stay tied and get one scale. A weight that something else holds too (a layer that
    was not selected) stays float; so does nn.MultiheadAttention's out_proj, which is never called.
    ``summary(model)`` says what stayed float and why. Another call with another filter gives other
    layers another config.

    Args:
        model: any nn.Module, itself such a layer too.
        config: how; None is QuantConfig().
        filter_fn: called with each such layer and its name; False leaves it float.
        overrides: another config for the layers whose whole name matches a pattern
            (``fnmatch``: * is any text, dots too), or None to leave them float. Of several that
            match the last one in the mapping counts.

    Returns:
        ``model``.

    Raises:
        ValueError: nothing to quantize, a pattern that matches no selected layer, tied layers with
            two configs, a group_size that does not divide a layer's inputs, or a weight that is
            not finite.
        TypeError: a half-precision weight, or an argument of another type. Nothing has been
            changed then.

    Example:
        >>> quantize_(model, QuantConfig(bits=2), overrides={"lm_head": None, "*.0.*": eight_bits})
    """
    config = given_config("quantize_", config)
    check_model("quantize_", model)
    if not callable(filter_fn):
        got = f"is {filter_fn!r}"
        _check.fail("quantize_", "filter_fn", got, "a function of a module and its name", TypeError)
    selected = [
        name
        for name, module in model.named_modules()
        if kind_of(module) is not None and filter_fn(module, name)
    ]
    configs = _configs(selected, config, _patterns(overrides))
    chosen, refused = _choose(model, configs)
    if not chosen:
        if any(isinstance(module, QuantLayer) for module in model.modules()):
            refused.append("what could be is quantized already")
        got = "has nothing to quantize" + (f" ({'; '.join(refused)})" if refused else "")
        _check.fail("quantize_", "model", got, f"at least one {NAMES} that filter_fn selects")
    for module, kind, own, tensors in chosen:
        become_quantized(module, kind, own, tensors)
    disable_fast_path(model)
    return model


def _patterns(overrides: object) -> dict[str, QuantConfig | None]:
    if overrides is None:
        return {}
    if not isinstance(overrides, Mapping):
        got, expected = f"is a {type(overrides).__name__}", "a dict of patterns"
        _check.fail("quantize_", "overrides", got, expected, TypeError)
    for pattern, config in overrides.items():
        if not isinstance(pattern, str):
            got = f"has the key {pattern!r}"
            _check.fail("quantize_", "overrides", got, "names with * and ?", TypeError)
        if not isinstance(config, (QuantConfig, type(None))):
            got = f"has a {type(config).__name__} for {pattern!r}"
            _check.fail("quantize_", "overrides", got, "a QuantConfig or None", TypeError)
    return dict(overrides)


def _configs(
    names: list[str], config: QuantConfig, overrides: Mapping[str, QuantConfig | None]
) -> dict[str, QuantConfig]:
    """The config of each layer that is to be quantized."""
    for pattern in overrides:
        if not any(fnmatchcase(name, pattern) for name in names):
            got = f"has {pattern!r}, which matches no layer that filter_fn selects"
            expected = "a pattern of whole names" + (f", such as {names[0]!r}" if names else "")
            _check.fail("quantize_", "overrides", got, expected)
    configs: dict[str, QuantConfig] = {}
    for name in names:
        own: QuantConfig | None = config
        for pattern, other in overrides.items():
            own = other if fnmatchcase(name, pattern) else own
        if own is not None:
            configs[name] = own
    return configs


Chosen = tuple[nn.Module, type[QuantLayer], QuantConfig, dict[str, Tensor]]


def _choose(model: nn.Module, configs: dict[str, QuantConfig]) -> tuple[list[Chosen], list[str]]:
    """What becomes quantized, how and by which scales, and what of the selected does not."""
    layout = Layout(model)
    chosen: list[Chosen] = []
    first: dict[int, tuple[str, QuantConfig, dict[str, Tensor]]] = {}
    refused: list[str] = []
    for name, module in model.named_modules():
        if name not in configs:
            continue
        holder = Holder(name, module, "weight")
        why = layout.why_float(holder, configs)
        if why is not None:
            refused.append(f"{holder.path}: {why}")
            continue
        kind, weight, config = kind_of(module), module.weight, configs[name]
        assert kind is not None
        assert isinstance(weight, Tensor)
        if id(weight) not in first:
            holders = [each.module for each in layout.holders[id(weight)]]
            tensors = first_scale(weight, config, holder.path, holders)
            first[id(weight)] = holder.path, config, tensors
        owner, other, tensors = first[id(weight)]
        if other != config:
            got = f"gives {holder.path} another config than {owner}, with which it is tied"
            _check.fail("quantize_", "overrides", got, "one config for one weight")
        chosen.append((module, kind, config, tensors))
    return chosen, refused


def first_scale(
    weight: Tensor, config: QuantConfig, name: str, holders: Sequence[nn.Module]
) -> dict[str, Tensor]:
    """``scale_tensors`` of a weight that these float layers hold."""
    check_latent(weight, "quantize_", name)
    if not weight.numel():
        got = f"has shape {tuple(weight.shape)}"
        _check.fail("quantize_", name, got, "at least one element")
    if not weight.is_meta and not torch.isfinite(weight).all():
        _check.fail("quantize_", name, "has values that are not finite", "finite numbers")
    kinds = [(kind, module) for module in holders if (kind := kind_of(module)) is not None]
    normal = any(kind.begins_normal for kind, _ in kinds)
    frozen = frozenset.intersection(*(kind.frozen_rows_of(module) for kind, module in kinds))
    with torch.no_grad():
        rows = as_rows(weight, config.rotated)
        return scale_tensors(rows, config, "quantize_", name, normal, frozen)
