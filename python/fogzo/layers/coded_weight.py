"""What stands for a quantized weight where codes are multiplied."""

from __future__ import annotations

from torch import Tensor

import fogzo_kernels as fk


class CodedWeight:
    """What stands for Q(W) where codes are multiplied: the codes, their scale and grid.

    Attributes:
        act_bits: of the inputs of layers that have no act_bits of their own; None: floats.
        read_as_values: whether somebody asked for float32 values instead.
    """

    read_as_values = False

    def __init__(
        self, codes: Tensor | fk.Packed, scale: Tensor, grid: fk.Grid, act_bits: int | None
    ) -> None:
        self.codes, self.scale, self.grid, self.act_bits = codes, scale, grid, act_bits

    def values(self) -> Tensor:
        """scale * value(codes), float32 [N, K]."""
        self.read_as_values = True
        values: Tensor = fk.dequantize(self.codes, self.scale, self.grid)
        return values

    def rows(self, index: Tensor) -> Tensor:
        """The rows of ``values()`` that a 1-D ``index`` names, [len(index), K]."""
        codes = self.codes
        if isinstance(codes, fk.Packed):
            chosen: Tensor | fk.Packed = fk.Packed(
                codes.data[index], codes.bits, (len(index), codes.shape[1])
            )
        else:
            chosen = codes[index]
        values: Tensor = fk.dequantize(chosen, rows_of(self.scale, index), self.grid)
        return values

    def part(self, first: int, last: int) -> CodedWeight:
        """The rows ``first`` .. ``last - 1``."""
        codes, part = self.codes, slice(first, last)
        if isinstance(codes, fk.Packed):
            shape = (last - first, codes.shape[1])
            return CodedWeight(
                fk.Packed(codes.data[part], codes.bits, shape),
                rows_of(self.scale, part),
                self.grid,
                self.act_bits,
            )
        return CodedWeight(codes[part], rows_of(self.scale, part), self.grid, self.act_bits)


def rows_of(scale: Tensor, rows: Tensor | slice) -> Tensor:
    """The scales of some rows: () is for all of them."""
    return scale if scale.dim() == 0 else scale[rows]
