"""A linear map by the values of codes, one side after the other where torch.vmap maps it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk


class CodedLinear(torch.autograd.Function):
    """x @ (scale * value(codes)).T + bias as torch multiplies it; no gradient."""

    @staticmethod
    def forward(
        x: Tensor,
        data: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        packed: tuple[int, tuple[int, ...]] | None,
        grid: fk.Grid,
    ) -> Tensor:
        codes = data if packed is None else fk.Packed(data, *packed)
        return torch.nn.functional.linear(x, fk.dequantize(codes, scale, grid), bias)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        pass

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *args: Any) -> tuple[Tensor, int]:
        entries = []
        for i in range(info.batch_size):
            own = [
                arg.select(dim, i) if isinstance(dim, int) else arg
                for arg, dim in zip(args, in_dims, strict=True)
            ]
            entries.append(CodedLinear.apply(*own))
        return torch.stack(entries), 0


def coded_linear(
    x: Tensor, codes: Tensor | fk.Packed, scale: Tensor, grid: fk.Grid, bias: Tensor | None
) -> Tensor:
    """x @ W^.T + bias by torch's own product, W^ = scale * value(codes) made for it and let go.

    It rounds as ``torch.nn.functional.linear`` of W^ does, in autocast too. Mapped by torch.vmap
    it makes one W^ after the other: never those of all sides together.

    Args:
        x: [..., K].
        codes: uint8 [N, K] or a Packed of it.
        scale: float32 > 0: () or [N, 1] or [N, G, 1].
        grid: the grid the codes belong to.
        bias: None or [N].

    Returns:
        [..., N], without a gradient.

    Raises:
        ValueError, TypeError: what dequantize or torch.nn.functional.linear refuses.

    Example:
        >>> grid, codes = fk.Grid("mid-rise", 2), torch.tensor([[0, 3]], dtype=torch.uint8)
        >>> coded_linear(torch.tensor([[1.0, 3.0]]), codes, torch.tensor(2.0), grid, None)
        tensor([[6.]])

    Source: the probes' forward passes of Yang & Aamodt, arXiv 2510.23926.
    """
    if torch.compiler.is_compiling() or not torch._C._are_functorch_transforms_active():
        return torch.nn.functional.linear(x, fk.dequantize(codes, scale, grid), bias)
    data, packed = codes, None
    if isinstance(codes, fk.Packed):
        data, packed = codes.data, (codes.bits, codes.shape)
    y: Tensor = CodedLinear.apply(x, data, scale, bias, packed, grid)
    return y
