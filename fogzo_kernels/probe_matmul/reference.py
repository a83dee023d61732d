"""Reference of probe_matmul: the specification, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._check import View
from .._reference import pack as bytes_of
from .._reference.grid import code_value, spread
from .._types import Flips, Grid, Packed


def probe_matmul(
    x: Tensor,
    codes: Tensor | Packed | Flips,
    scale: Tensor,
    grid: Grid,
    bias: Tensor | None,
    x_scale: Tensor | None,
    view: View,
) -> Tensor:
    values = code_value(dense(codes), grid).double()  # [P, N, K] or [N, K]
    weight = spread(scale, view.rows, view.cols).double() * values
    rows = x.double() if x_scale is None else x.double() * x_scale.double()[..., None]
    y: Tensor = rows @ weight.mT
    if bias is not None:
        y = y + bias.double()
    y = y.to(x.dtype if x_scale is None else torch.float32)
    return y if y.ndim == 3 else y.unsqueeze(0)


def dense(codes: Tensor | Packed | Flips) -> Tensor:
    """One uint8 code an element, [N, K] or [P, N, K]."""
    if isinstance(codes, Packed):
        return bytes_of.unpack(codes.data, codes.bits, codes.shape[-1])
    if isinstance(codes, Flips):
        sides: Tensor = codes.base.repeat(len(codes.count), 1, 1)
        for side, count in enumerate(codes.count.tolist()):
            sides[side].view(-1)[codes.index[side, :count]] = codes.code[side, :count]
        return sides
    return codes
