"""Packed codes: code k of a byte in bits k * BITS .. (k + 1) * BITS - 1, lowest first."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def pack_last(codes, BITS: tl.constexpr):
    """int32 [R, L] codes -> uint8 [R, L * BITS / 8] bytes."""
    if BITS == 8:
        return codes.to(tl.uint8)
    per_byte: tl.constexpr = 8 // BITS
    grouped = tl.reshape(codes, [codes.shape[0], codes.shape[1] // per_byte, per_byte])
    shift = tl.arange(0, per_byte) * BITS
    return tl.sum(grouped << shift[None, None, :], axis=2).to(tl.uint8)


@triton.jit
def unpack_code(byte, position, BITS: tl.constexpr):
    """int32 code at a position (0 .. 8 / BITS - 1) of a byte; both broadcast."""
    return (byte.to(tl.int32) >> (position * BITS)) & ((1 << BITS) - 1)
