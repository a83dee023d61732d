"""What stands for a quantized weight where codes are multiplied."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

import fogzo_kernels as fk

from ..autograd import coded_product


class CodedWeight:
    """What stands for Q(W) where codes are multiplied: the codes, their scale and grid.

    Attributes:
        act_bits: of the inputs of layers that have no act_bits of their own; None: floats.
        as_values: whether float inputs are multiplied by float32 values, as W^ is without a probe.
        read_as_values: whether somebody asked for ``values()``.
    """

    read_as_values = False

    def __init__(
        self,
        codes: Tensor | fk.Packed,
        scale: Tensor,
        grid: fk.Grid,
        act_bits: int | None,
        as_values: bool = False,
    ) -> None:
        self.codes, self.scale, self.grid, self.act_bits = codes, scale, grid, act_bits
        self.as_values = as_values

    def values(self) -> Tensor:
        """scale * value(codes), float32 [N, K]."""
        self.read_as_values = True
        values: Tensor = fk.dequantize(self.codes, self.scale, self.grid)
        return values

    def product(
        self,
        x: Tensor,
        bias: Tensor | None,
        of: Callable[[Tensor, Tensor, Tensor | None], Tensor] = F.linear,
    ) -> Tensor:
        """``of`` x, ``values()`` and bias, without a gradient; the values live no longer."""
        return coded_product(of, x, self.codes, self.scale, self.grid, bias)

    def rows(self, index: Tensor) -> Tensor:
        """The rows of ``values()`` that a 1-D ``index`` names, [len(index), K]."""

        def of(table: Tensor) -> Tensor:
            return table.index_select(0, index)  # refuses what F.embedding refuses

        values: Tensor = fk.dequantize(*self._chosen(len(index), of), self.grid)
        return values

    def part(self, first: int, last: int) -> CodedWeight:
        """The rows ``first`` .. ``last - 1``."""
        codes, scale = self._chosen(last - first, lambda table: table[first:last])
        return CodedWeight(codes, scale, self.grid, self.act_bits, self.as_values)

    def _chosen(
        self, count: int, of: Callable[[Tensor], Tensor]
    ) -> tuple[Tensor | fk.Packed, Tensor]:
        """Codes and scales of the ``count`` rows that ``of`` takes from a table."""
        codes, scale = self.codes, self.scale
        scale = scale if scale.dim() == 0 else of(scale)  # () is for all rows
        if isinstance(codes, fk.Packed):
            return fk.Packed(of(codes.data), codes.bits, (count, codes.shape[1])), scale
        return of(codes), scale
