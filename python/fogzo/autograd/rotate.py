"""The Hadamard rotation, which is its own gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk


class Rotate(torch.autograd.Function):
    """x @ H forward, grad @ H backward: H is symmetric."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        rotated: Tensor = fk.hadamard(x)
        return rotated

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        rotated: Tensor = fk.hadamard(grad)
        return rotated


def rotate(x: Tensor) -> Tensor:
    """x rotated along its last dimension by orthonormal Hadamard blocks of 128; differentiable.

    H is symmetric and its own inverse: (x @ H) @ (W @ H).T = x @ W.T up to rounding.

    Args:
        x: float32 [..., K]; a remainder of K is cut into its largest powers of two.

    Returns:
        float32, the shape of x.

    Raises:
        ValueError, TypeError: an argument that fogzo_kernels.hadamard refuses.

    Example:
        >>> rotate(torch.tensor([3.0, 1.0, 5.0]))
        tensor([2.8284, 1.4142, 5.0000])

    Source: QuEST, arXiv 2502.05003, section 3.
    """
    if not torch.is_grad_enabled():  # torch.vmap maps the operation, and no such Function
        plain: Tensor = fk.hadamard(x)
        return plain
    rotated: Tensor = Rotate.apply(x)
    return rotated
