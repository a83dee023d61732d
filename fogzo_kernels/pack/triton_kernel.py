"""Triton kernels of pack and unpack: those that other operations share."""

from __future__ import annotations

from typing import Any

import torch

from .. import _array, _check
from .._triton.pack import PACK, UNPACK, pack_rows, unpack_rows
from .._types import Packed

KERNELS = (PACK, UNPACK)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def pack(codes: Any, bits: int, out: Packed | None) -> Packed:
    codes = _array.contiguous(codes)
    shape = tuple(codes.shape)
    if out is None:
        size = _check.packed_shape(shape, bits)
        out = Packed(torch.empty(size, dtype=torch.uint8, device=codes.device), bits, shape)
    pack_rows(codes, out.data, bits)
    return out


def unpack(packed: Packed, out: Any) -> Any:
    return unpack_rows(packed, out)
