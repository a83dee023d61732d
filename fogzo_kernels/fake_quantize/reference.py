"""Reference of fake_quantize and its backward pass: the specification, in plain torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._check import View
from .._reference.grid import in_bins, spread, value
from .._types import Grid


def fake_quantize(w: Tensor, scale: Tensor, grid: Grid, view: View) -> Tensor:
    a = spread(scale, view.rows, view.cols)
    x = in_bins(w.reshape(view.rows, view.cols), a)
    return (a * value(x, grid)).reshape(view.shape)


def fake_quantize_backward(
    grad: Tensor,
    w: Tensor,
    scale: Tensor,
    grid: Grid,
    surrogate: str,
    needs_scale_grad: bool,
    view: View,
    limit: float | None = None,
) -> tuple[Tensor, Tensor | None]:
    x = in_bins(w.reshape(view.rows, view.cols), spread(scale, view.rows, view.cols))
    g = grad.reshape(view.rows, view.cols)
    low, high = (grid.v_min, grid.v_max) if limit is None else (-limit, limit)
    inside = (x >= low) & (x <= high)
    grad_w = surrogate_gradient(g, x, grid, surrogate, inside).reshape(view.shape)
    return grad_w, scale_gradient(g, x, grid, scale, inside) if needs_scale_grad else None


def surrogate_gradient(g: Tensor, x: Tensor, grid: Grid, surrogate: str, inside: Tensor) -> Tensor:
    """g * h'(x); the masks are closed and made from the unrounded x."""
    zero = torch.zeros_like(g)
    if surrogate == "identity":
        return g.clone()
    if surrogate == "clipped":
        return torch.where(inside, g, zero)
    if surrogate == "hardtanh":
        return torch.where((x >= -1) & (x <= 1), g, zero)
    if surrogate == "tanh":
        return g * (1 - x.tanh().square())
    if surrogate == "approx_sign":
        return torch.where((x >= -1) & (x <= 1), g * (2 - 2 * x.abs()), zero)
    return torch.where((value(x, grid) - x).abs() <= 0.5, g, zero)  # trust


def scale_gradient(g: Tensor, x: Tensor, grid: Grid, scale: Tensor, inside: Tensor) -> Tensor:
    if not g.numel():
        return torch.zeros_like(scale)  # no element, no sum
    v = value(x, grid)
    t = torch.where(inside, v - x, v)
    total = (g.double() * t.double()).reshape(scale.numel(), -1).sum(1)
    return (total / math.sqrt(g.numel() * grid.positive_levels)).float().reshape(scale.shape)
