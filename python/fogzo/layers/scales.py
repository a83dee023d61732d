"""Scales of a layer: how they begin, which of them are learned, and a for one forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..autograd import rotate
from .config import QuantConfig

MIN_LEARNED = 1e-5  # what a learned scale counts as where it has fallen below


def as_rows(tensor: Tensor, rotated: bool) -> Tensor:
    """A tensor of a weight's shape as [N, K] = [shape[0], rest]; ``rotated``: by Hadamard blocks.

    K is the last dimension that "quest" rotates: for a convolution all inputs of an output.
    """
    rows = tensor if tensor.dim() == 2 else tensor.flatten(1)
    return rotate(rows) if rotated else rows


def initial_scale(
    rows: Tensor, config: QuantConfig, op: str = "QuantLayer", name: str = "weight"
) -> Tensor:
    """a from the config's rule and a weight; ``op``, ``name``: call and weight, for error texts.

    Args:
        rows: float32 [N, K], rotated already where the config rotates.
    """
    check_latent(rows, op, name)
    group = config.group_size
    if group is not None and rows.shape[1] % group:
        got = f"is {group}, which does not divide the {rows.shape[1]} inputs of {name}"
        _check.fail(op, "group_size", got, "a divisor of in_features")
    with torch.no_grad():
        scale: Tensor = fk.compute_scale(
            rows, config.values, config.scale, config.granularity, group
        )
        if config.scale_value is not None:
            scale = torch.full_like(scale, config.scale_value)
    return scale


def scale_tensors(
    rows: Tensor, config: QuantConfig, op: str = "QuantLayer", name: str = "weight"
) -> dict[str, Tensor]:
    """What a layer keeps of its scale, by attribute: parameters where learned, else buffers.

    lsq: ``scale`` is learned. stretched: ``alpha`` is, and ``scale`` = alpha / (v_max + 1/2)
    follows it. Layers with one weight share these tensors.
    """
    scale = initial_scale(rows, config, op, name)
    if config.scale == "lsq":
        return {"scale": nn.Parameter(scale)}
    if config.scale == "stretched":
        return {"alpha": nn.Parameter(scale * config.stretch), "scale": scale}
    return {"scale": scale}


def learned_scale(scale: Tensor) -> Tensor:
    """max(scale, 1e-5), without gradient below."""
    return torch.where(scale < MIN_LEARNED, MIN_LEARNED, scale)


def stretched_scale(alpha: Tensor, stretch: float) -> Tensor:
    """max(alpha, 1e-5) / stretch; the gradient passes the floor, as published."""
    floor = MIN_LEARNED + (alpha - alpha.detach())
    return torch.where(alpha < MIN_LEARNED, floor, alpha) / stretch


def check_latent(w: Tensor | None, op: str, name: str = "weight") -> Tensor:
    """The latent weight, refused unless it is float32."""
    if w is None or w.dtype is not torch.float32:
        got = "is None" if w is None else f"has dtype {str(w.dtype).removeprefix('torch.')}"
        expected = "float32: call model.float() and use autocast"
        _check.fail(op, name, got, expected, TypeError)
    return w
