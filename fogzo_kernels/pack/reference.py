"""Reference of pack and unpack: the specification, in plain torch."""

from __future__ import annotations

from torch import Tensor

from .._reference import pack as bytes_of
from .._types import Packed


def pack(codes: Tensor, bits: int) -> Packed:
    return Packed(bytes_of.pack(codes, bits), bits, tuple(codes.shape))


def unpack(packed: Packed) -> Tensor:
    return bytes_of.unpack(packed.data, packed.bits, packed.shape[-1])
