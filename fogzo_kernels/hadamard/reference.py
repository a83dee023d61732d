"""Reference of hadamard: the specification, in plain torch."""

from __future__ import annotations

from torch import Tensor

from .._reference.hadamard import rotate_blocks


def hadamard(x: Tensor, block: int) -> Tensor:
    return rotate_blocks(x, block)
