"""Triton kernels of pack and unpack."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _check, _launch
from .._triton.pack import PACK, arguments, pack_rows, places
from .._types import Packed


@triton.jit
def unpack_kernel(
    data,
    codes,
    size,
    width,
    row_bytes,
    BITS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """Bytes [rows, row_bytes] -> uint8 codes [rows, width]."""
    program = tl.program_id(0).to(tl.int64)
    byte, exists, place, inside = places(program, size, width, row_bytes, BITS, WHOLE, BLOCK)
    shift = tl.arange(0, 8 // BITS)[None, :] * BITS
    code = (tl.load(data + byte, exists, other=0).to(tl.int32) >> shift) & ((1 << BITS) - 1)
    tl.store(codes + place, code.to(tl.uint8), inside)


KERNELS = (PACK, _launch.Kernel("unpack", unpack_kernel, PACK.cases))


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
    data = _array.contiguous(packed.data)
    if out is None:
        out = torch.empty(packed.shape, dtype=torch.uint8, device=data.device)
    _, kernel = KERNELS
    kernel.launch(
        data.device,
        -(-data.numel() // kernel.pick(data.device).blocks["BLOCK"]),
        data=data,
        codes=out,
        **arguments(packed.shape, data, packed.bits),
    )
    return out
