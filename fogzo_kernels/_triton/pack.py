"""Packed codes: code k of a byte in bits k * BITS .. (k + 1) * BITS - 1, lowest first."""

from __future__ import annotations

import math
from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch
from .._types import Packed
from .tiles import scale_index


@triton.jit
def pack_last(codes, BITS: tl.constexpr):
    """int32 [R, L] codes -> uint8 [R, L * BITS / 8] bytes."""
    per_byte: tl.constexpr = 8 // BITS
    if BITS == 8:
        data = codes
    else:
        grouped = tl.reshape(codes, [codes.shape[0], codes.shape[1] // per_byte, per_byte])
        shift = tl.arange(0, per_byte) * BITS
        data = tl.sum(grouped << shift[None, None, :], axis=2)
    return data.to(tl.uint8)


@triton.jit
def places(program, size, width, row_bytes, BITS: tl.constexpr, WHOLE: tl.constexpr, BLOCK):
    """Byte numbers [BLOCK, 1], whether they exist, and the codes in them [BLOCK, 8 / BITS].

    size: bytes in all; width, row_bytes: codes and bytes of a row. WHOLE: rows fill whole bytes.
    """
    per_byte: tl.constexpr = 8 // BITS
    begin = program * BLOCK
    ahead = tl.arange(0, BLOCK)[:, None]
    part = tl.arange(0, per_byte)[None, :]
    byte = begin + ahead
    exists = byte < size
    if WHOLE:
        place = byte * per_byte + part
        inside = exists & (part >= 0)
    else:
        row = scale_index(begin, ahead, row_bytes)
        column = (byte - row * row_bytes) * per_byte + part
        place = row * width + column
        inside = exists & (column < width)
    return byte, exists, place, inside


@triton.jit
def pack_kernel(
    codes,
    data,
    size,
    width,
    row_bytes,
    BITS: tl.constexpr,
    WHOLE: tl.constexpr,
    BLOCK: tl.constexpr,
):
    """uint8 codes [rows, width] -> bytes [rows, row_bytes]."""
    program = tl.program_id(0).to(tl.int64)
    byte, exists, place, inside = places(program, size, width, row_bytes, BITS, WHOLE, BLOCK)
    code = tl.load(codes + place, inside, other=0).to(tl.int32)
    tl.store(data + byte, pack_last(code, BITS), exists)


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


def _types(**arrays: str) -> dict[str, str]:
    return {**arrays, "size": "i64", "width": "i64", "row_bytes": "i64"}


_CASES = tuple(
    _launch.Case(
        f"{bits} bits",
        _types(codes="*u8", data="*u8"),
        {"BITS": bits, "WHOLE": True},
        ("codes", "data", "size"),
        loads16=False,  # bytes
    )
    for bits in (1, 2, 4)
)
PACK = _launch.Kernel("pack", pack_kernel, _CASES)
UNPACK = _launch.Kernel("unpack", unpack_kernel, _CASES)


def arguments(shape: tuple[int, ...], data: Any, bits: int) -> dict[str, Any]:
    """Sizes of a launch over the bytes of codes of this shape."""
    width = shape[-1]
    return {
        "size": data.numel(),
        "width": width,
        "row_bytes": max(1, math.ceil(width * bits / 8)),
        "BITS": bits,
        "WHOLE": width * bits % 8 == 0,
    }


def pack_rows(codes: Any, data: Any, bits: int) -> None:
    """Write the bytes of contiguous uint8 codes [..., K]: [..., ceil(K * bits / 8)]."""
    programs = -(-data.numel() // PACK.pick(codes.device).blocks["BLOCK"])
    PACK.launch(
        codes.device, programs, codes=codes, data=data, **arguments(codes.shape, data, bits)
    )


def unpack_rows(packed: Packed, codes: Any = None) -> Any:
    """uint8 codes [..., K] of a Packed, into ``codes`` where given."""
    data = _array.contiguous(packed.data)
    if codes is None:
        codes = torch.empty(packed.shape, dtype=torch.uint8, device=data.device)
    programs = -(-data.numel() // UNPACK.pick(data.device).blocks["BLOCK"])
    sizes = arguments(tuple(packed.shape), data, packed.bits)
    UNPACK.launch(data.device, programs, data=data, codes=codes, **sizes)
    return codes
