"""Quantize-dequantize with the straight-through gradient of a surrogate."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk


class FakeQuantize(torch.autograd.Function):
    """a * value(w / a) forward; the surrogate's mask (fake_quantize_backward) backward."""

    @staticmethod
    def forward(
        ctx: Any, w: Tensor, scale: Tensor, grid: fk.Grid, surrogate: str, limit: float | None
    ) -> Tensor:
        ctx.save_for_backward(w, scale)
        ctx.grid, ctx.surrogate, ctx.limit = grid, surrogate, limit
        out: Tensor = fk.fake_quantize(w, scale, grid)
        return out

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor | None, None, None, None]:
        w, scale = ctx.saved_tensors
        needed = ctx.needs_input_grad[1]
        grad_w, grad_scale = fk.fake_quantize_backward(
            grad, w, scale, ctx.grid, ctx.surrogate, needs_scale_grad=needed, limit=ctx.limit
        )
        return grad_w, grad_scale, None, None, None


class StraightThrough(torch.autograd.Function):
    """a * value(w / a) forward; the identity backward: no mask, and nothing to save."""

    @staticmethod
    def forward(ctx: Any, w: Tensor, scale: Tensor, grid: fk.Grid) -> Tensor:
        out: Tensor = fk.fake_quantize(w, scale, grid)
        return out

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        return grad, None, None


def fake_quantize(
    w: Tensor, scale: Tensor, grid: fk.Grid, surrogate: str, limit: float | None = None
) -> Tensor:
    """Quantized weight a * value(w / a), differentiable through the surrogate.

    Args:
        w: latent weight, float32 [N, ...].
        scale: a > 0, float32: () or [N, 1] or [N, K/g, 1]; gets its gradient where it requires
            one.
        grid: the values a weight may take.
        surrogate: what the backward pass pretends: grad_w = mask(w / a) * grad.
        limit: abs w / a up to which "clipped" lets the gradient pass; None: the grid's range.

    Returns:
        float32, the shape of w, in the unit of w.

    Raises:
        ValueError, TypeError: an argument that fogzo_kernels.fake_quantize refuses.

    Example:
        >>> fake_quantize(torch.tensor([[0.3]]), torch.ones(()), fk.Grid("sign"), "hardtanh")
        tensor([[1.]], grad_fn=<FakeQuantizeBackward>)

    Source: the straight-through estimator as in Yang & Aamodt, arXiv 2510.23926, section 2; the
    scale's gradient: LSQ, arXiv 1902.08153.
    """
    if not torch.is_grad_enabled():  # torch.vmap maps the operation, and no such Function
        values: Tensor = fk.fake_quantize(w, scale, grid)
        return values
    if surrogate == "identity" and not scale.requires_grad:
        straight: Tensor = StraightThrough.apply(w, scale, grid)
        return straight
    quantized: Tensor = FakeQuantize.apply(w, scale, grid, surrogate, limit)
    return quantized
