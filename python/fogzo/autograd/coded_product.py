"""A product with the values of codes, one side after the other where torch.vmap maps it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

Product = Callable[[Tensor, Tensor, Tensor | None], Tensor]
PARTS = 32  # float32 values at a time are a part of the rows, where autocast takes halves


class CodedProduct(torch.autograd.Function):
    """product(x, scale * value(codes), bias); no gradient."""

    @staticmethod
    def forward(
        product: Product,
        x: Tensor,
        data: Tensor,
        scale: Tensor,
        bias: Tensor | None,
        packed: tuple[int, tuple[int, ...]] | None,
        grid: fk.Grid,
    ) -> Tensor:
        codes = data if packed is None else fk.Packed(data, *packed)
        return product(x, factor(x, codes, scale, grid), bias)

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
            entries.append(CodedProduct.apply(*own))
        return torch.stack(entries), 0


def factor(x: Tensor, codes: Tensor | fk.Packed, scale: Tensor, grid: fk.Grid) -> Tensor:
    """scale * value(codes), [N, K], in the dtype that a product with x takes: autocast's, if on.

    Halves are made of a part of the rows after the other: no float32 copy of all is beside them.
    """
    device = x.device.type
    autocast = torch.is_autocast_enabled(device) and x.dtype is not torch.float64
    dtype = torch.get_autocast_dtype(device) if autocast else torch.float32
    if dtype is torch.float32:
        values: Tensor = fk.dequantize(codes, scale, grid)
        return values
    out = torch.empty(codes.shape, dtype=dtype, device=x.device)
    step = max(1, -(-len(out) // PARTS))
    for first in range(0, len(out), step):
        rows = slice(first, first + step)
        own = scale if scale.dim() == 0 else scale[rows]
        if isinstance(codes, fk.Packed):
            part = codes.data[rows]
            out[rows] = fk.dequantize(fk.Packed(part, codes.bits, out[rows].shape), own, grid)
        else:
            out[rows] = fk.dequantize(codes[rows], own, grid)
    return out


def coded_product(
    product: Product,
    x: Tensor,
    codes: Tensor | fk.Packed,
    scale: Tensor,
    grid: fk.Grid,
    bias: Tensor | None,
) -> Tensor:
    """product(x, W^, bias) as torch computes it, W^ = scale * value(codes) made for it and let go.

    It rounds as ``product`` of W^ does, in autocast too. Mapped by torch.vmap it makes one W^ after
    the other: never those of all sides together.

    Args:
        product: torch.nn.functional.linear, or another function of x, W^ [N, K] and bias.
        x: what it takes; codes: uint8 [N, K] or a Packed of it.
        scale: float32 > 0: () or [N, 1] or [N, G, 1].
        grid: the grid the codes belong to.
        bias: None or [N].

    Returns:
        What ``product`` returns, without a gradient.

    Raises:
        ValueError, TypeError: what dequantize or ``product`` refuses.

    Example:
        >>> grid, codes = fk.Grid("mid-rise", 2), torch.tensor([[0, 3]], dtype=torch.uint8)
        >>> x, linear = torch.tensor([[1.0, 3.0]]), torch.nn.functional.linear
        >>> coded_product(linear, x, codes, torch.tensor(2.0), grid, None)
        tensor([[6.]])

    Source: the probes' forward passes of Yang & Aamodt, arXiv 2510.23926.
    """
    if torch.compiler.is_compiling():
        return product(x, fk.dequantize(codes, scale, grid), bias)
    if not torch._C._are_functorch_transforms_active():
        return product(x, factor(x, codes, scale, grid), bias)
    data, packed = codes, None
    if isinstance(codes, fk.Packed):
        data, packed = codes.data, (codes.bits, codes.shape)
    y: Tensor = CodedProduct.apply(product, x, data, scale, bias, packed, grid)
    return y
