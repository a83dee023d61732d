"""A linear map of integer activations and weight codes, with the straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk


class IntegerLinear(torch.autograd.Function):
    """x^ @ W^.T + bias from codes forward; x^ and W^ as if they were x and W^ backward."""

    @staticmethod
    def forward(
        ctx: Any,
        x: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        codes: Tensor | fk.Packed,
        scale: Tensor,
        grid: fk.Grid,
        act_bits: int,
        dtype: torch.dtype,
    ) -> Tensor:
        x_codes, x_scale = fk.quantize_activation(x, act_bits)
        ctx.save_for_backward(x_codes, x_scale, weight, x if act_bits == 1 else None)
        return product(x_codes, x_scale, codes, scale, grid, bias, dtype)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x_codes, x_scale, weight, x = ctx.saved_tensors
        grad_x = grad_weight = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight.to(grad.dtype)
            if x is not None:  # hardtanh of x / x_scale
                grad_x = grad_x.masked_fill(~(x.abs() <= x_scale[:, None]), 0)
        if ctx.needs_input_grad[1]:
            quantized = x_codes.float().mul_(x_scale[:, None]).to(grad.dtype)
            grad_weight = (grad.t() @ quantized).to(weight.dtype)
        if ctx.needs_input_grad[2]:
            grad_bias = grad.sum(0)
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


def product(
    x_codes: Tensor,
    x_scale: Tensor,
    codes: Tensor | fk.Packed,
    scale: Tensor,
    grid: fk.Grid,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    y: Tensor = fk.probe_matmul(x_codes, codes, scale, grid, bias, x_scale=x_scale)[0]
    return y.to(dtype)


def integer_linear(
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    codes: Tensor | fk.Packed,
    scale: Tensor,
    grid: fk.Grid,
    act_bits: int,
    dtype: torch.dtype = torch.float32,
) -> Tensor:
    """x^ @ W^.T + bias, both factors integers times scales, differentiable straight through.

    x^ = x_scale * x_codes (``fogzo_kernels.quantize_activation``), W^ = scale * value(codes).
    Backward: grad_x = grad @ W^, where act_bits is 1 only for abs x <= x_scale (hardtanh);
    grad_W^ = grad.T @ x^.

    Args:
        x: float32 or bfloat16 [M, K]; a row is a token.
        weight: W^, float32 [N, K], read by the backward pass alone and given its gradient; None
            where no gradient is wanted.
        bias: None or float32 [N].
        codes: uint8 [N, K] or a Packed of it: the codes of W^.
        scale: float32 > 0: () or [N, 1] or [N, G, 1].
        grid: the grid the codes belong to.
        act_bits: 1..8.
        dtype: of the result.

    Returns:
        [M, N].

    Raises:
        ValueError, TypeError: what quantize_activation or probe_matmul refuses.

    Example:
        >>> w = torch.tensor([[1.5, -0.5]])
        >>> grid, one = fk.Grid("mid-rise", 2), torch.tensor(1.0)
        >>> x, codes = torch.tensor([[127.0, 2.0]]), fk.quantize(w, one, grid)
        >>> integer_linear(x, w, None, codes, one, grid, act_bits=8)
        tensor([[189.5000]])

    Source: per-token activations and the straight-through estimator, docs/algorithm.md.
    """
    if not torch.is_grad_enabled():  # torch.vmap maps these operations, and no such Function
        return product(*fk.quantize_activation(x, act_bits), codes, scale, grid, bias, dtype)
    y: Tensor = IntegerLinear.apply(x, weight, bias, codes, scale, grid, act_bits, dtype)
    return y
