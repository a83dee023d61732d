"""Scales of a layer: how they begin, which of them are learned, and a for one forward."""

from __future__ import annotations

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check
from fogzo_kernels._scale import MIN_DYNAMIC_SCALE, MIN_SCALE

from .._warn import warn
from ..autograd import rotate
from .config import QuantConfig

MIN_LEARNED = 1e-5  # what a learned scale counts as where it has fallen below
QUANTILES = 1024  # at most, that stand for the elements of a scale as torch begins them


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
        if config.rotated:  # at 2^-100 what probes divide by it would overflow
            scale.clamp_(min=MIN_DYNAMIC_SCALE)
    return scale


def scale_tensors(
    rows: Tensor,
    config: QuantConfig,
    op: str = "QuantLayer",
    name: str = "weight",
    normal: bool = False,
    frozen: frozenset[int] = frozenset(),
) -> dict[str, Tensor]:
    """What a layer keeps of its scale, by attribute: parameters where learned, else buffers.

    lsq: ``scale`` is learned. stretched: ``alpha`` is, and ``scale`` = alpha / (v_max + 1/2)
    follows it. Layers with one weight share these tensors.

    Args:
        normal: whether torch begins such a weight by N(0, 1), not by U(-1, 1) / sqrt(K).
        frozen: rows that get no gradient; where they are all zero they need no scale.
    """
    scale = initial_scale(rows, config, op, name)
    if config.scale_value is None and not scale.is_meta:
        scale = _of_zeros(scale, rows, config, op, name, normal, frozen)
    if config.scale == "lsq":
        return {"scale": nn.Parameter(scale)}
    if config.scale == "stretched":
        return {"alpha": nn.Parameter(scale * config.stretch), "scale": scale}
    return {"scale": scale}


def _of_zeros(
    scale: Tensor,
    rows: Tensor,
    config: QuantConfig,
    op: str,
    name: str,
    normal: bool,
    frozen: frozenset[int],
) -> Tensor:
    """``scale`` with a value to learn by where W is all zero, and a warning that says so.

    There a rule that goes by W once gives 2^-100: Q(W) would stay 0 and G, which is divided by a,
    overflow. A dynamic rule follows W as soon as it moves: its scale stays.
    """
    least = MIN_DYNAMIC_SCALE if config.dynamic else MIN_SCALE
    zero, others = scale <= least, scale[scale > least]
    if frozen and scale.dim():
        zero[sorted(frozen)] = False
    count, parts = int(zero.sum()), zero.numel()
    if not count:
        return scale
    unit = "groups" if config.granularity == "group" else "rows"
    text = f"{op}: {name} is all zero" + (f" in {count} of {parts} {unit}" if count < parts else "")
    if config.dynamic:
        warn(
            f"{text}: until it is not, scale {config.scale!r} is {MIN_DYNAMIC_SCALE:g} there, and "
            "probes see no slope and divide by it; initialise it, or begin with FOGZO(start=1)"
        )
        return scale
    if others.numel():
        value, source = others.mean(), "the mean of the others"
    else:
        n = min(max(rows.numel() // parts, 2), QUANTILES)
        middles = (2 * torch.arange(n, device=scale.device) + 1) / n - 1
        like = torch.erfinv(middles) * 2**0.5 if normal else middles * rows.shape[1] ** -0.5
        value = fk.compute_scale(like, config.values, config.scale, "tensor")
        source = "that of torch's default initialisation"
    warn(f"{text}, which gives scale {config.scale!r} nothing to go by: took {value:.3g}, {source}")
    return torch.where(zero, value, scale)


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
