"""What torch.vmap makes of the operations that layers run: a dimension of probe sides, at once.

A rule gets plain tensors with the mapped dimension in them, and where it lies in each (None: not
mapped); it returns its results and where it lies in those. Operations without a rule are run once
for each entry by PyTorch itself, which says so.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from .operations import LIBRARY, codes_of, grid_of

OPS: Any = torch.ops.fogzo
Dims = tuple[Any, ...]


def rule(function: Any) -> Any:
    """Register a function as the rule of ``fogzo::<its name>``."""
    torch.library.register_vmap(f"fogzo::{function.__name__}", function, lib=LIBRARY)
    return function


def first(tensor: Tensor, dim: int | None) -> Tensor:
    """The mapped dimension in front."""
    return tensor if dim is None else tensor.movedim(dim, 0)


def one(tensor: Any, dim: int | None, entry: int) -> Any:
    return tensor if dim is None else tensor.select(dim, entry)


@rule
def dequantize(
    info: Any,
    dims: Dims,
    codes: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    packed_shape: list[int] | None,
) -> tuple[Tensor, int]:
    of, count = grid_of(grid, bits), info.batch_size
    shape = one(codes, dims[0], 0).shape if packed_shape is None else packed_shape
    values = torch.empty((count, *shape), dtype=torch.float32, device=codes.device)
    for i, out in enumerate(values.unbind()):
        entry = codes_of(one(codes, dims[0], i), packed_shape, of)
        fk.dequantize(entry, one(scale, dims[1], i), of, out=out)
    return values, 0


@rule
def probe_matmul(
    info: Any,
    dims: Dims,
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    bias: Tensor | None,
    x_scale: Tensor | None,
    packed_shape: list[int] | None,
) -> tuple[Tensor, int]:
    """One call for all entries, of x [M, K] with its scales and of codes [N, K], if no more is."""
    kind, count = (grid, bits), info.batch_size
    matrices = x.ndim - (dims[0] is not None) == 2 == codes.ndim - (dims[1] is not None)
    together = x_scale is None or (dims[0] is None) == (dims[6] is None)
    if dims[2] is not None or dims[5] is not None or not matrices or not together:
        entries = [
            OPS.probe_matmul(
                one(x, dims[0], i),
                one(codes, dims[1], i),
                one(scale, dims[2], i),
                *kind,
                one(bias, dims[5], i),
                one(x_scale, dims[6], i),
                packed_shape,
            )
            for i in range(count)
        ]
        return torch.stack(entries), 0
    if packed_shape is not None and dims[1] is not None:
        packed_shape = [count, *packed_shape]
    sides = None if x_scale is None else first(x_scale, dims[6])
    codes = first(codes, dims[1])
    y = OPS.probe_matmul(first(x, dims[0]), codes, scale, *kind, bias, sides, packed_shape)
    return y.unsqueeze(1), 0  # an entry's result is [1, M, N]


@rule
def quantize_activation(
    info: Any, dims: Dims, x: Tensor, bits: int
) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
    """A scale a row: of all entries' rows alike."""
    return OPS.quantize_activation(first(x, dims[0]), bits), (0, 0)


@rule
def hadamard(info: Any, dims: Dims, x: Tensor, block: int) -> tuple[Tensor, int]:
    """Along the last dimension of all entries alike."""
    return OPS.hadamard(first(x, dims[0]), block), 0
