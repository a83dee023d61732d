"""What took a quantized layer's weight away after it was quantized."""

from __future__ import annotations

from typing import NoReturn

from torch import nn

from fogzo_kernels import _check


def refuse_weight(layer: nn.Module) -> NoReturn:
    """RuntimeError for a layer without a parameter ``weight``, with what computes it instead."""
    parametrizations = layer._modules.get("parametrizations")
    by = [] if parametrizations is None else list(parametrizations.weight.children())  # type: ignore[union-attr]
    # prune names its tensor _tensor_name, weight_norm and spectral_norm name
    hooks = [
        hook for hook in layer._forward_pre_hooks.values()
        if "weight" in (getattr(hook, "_tensor_name", None), getattr(hook, "name", None))
    ]  # fmt: skip
    names = " and ".join(type(each).__name__ for each in (*by, *hooks))
    if names:
        got = f"is computed by {names}"
        expected = "a parameter of the layer: take that off, or keep the layer float (overrides)"
    else:
        got = "is no parameter any more, as FullyShardedDataParallel makes it"
        expected = "whole weights in each process: nn.parallel.DistributedDataParallel"
    _check.fail(type(layer).__name__, "weight", got, expected, RuntimeError)
