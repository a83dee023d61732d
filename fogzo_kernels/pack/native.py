"""Native cpu backend of pack and unpack."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _check, _native
from .._types import Packed


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def pack_cpu(codes: Any, bits: int, out: Packed | None) -> Packed:
    codes = _array.contiguous(codes)
    shape = tuple(codes.shape)
    if out is None:
        kind = _array.kind(codes) or "torch"
        out = Packed(_array.empty(_check.packed_shape(shape, bits), "uint8", kind), bits, shape)
    status = _native.cpu().pack(
        _array.pointer(codes),
        _array.pointer(out.data),
        prod(shape[:-1]),
        shape[-1],
        bits,
        _array.threads(),
    )
    _native.raise_on("pack", "_cpu", status)
    return out


def unpack_cpu(packed: Packed, out: Any) -> Any:
    data = _array.contiguous(packed.data)
    shape = tuple(packed.shape)
    result = out
    if result is None:
        result = _array.empty(shape, "uint8", _array.kind(data) or "torch")
    status = _native.cpu().unpack(
        _array.pointer(data),
        _array.pointer(result),
        prod(shape[:-1]),
        shape[-1],
        packed.bits,
        _array.threads(),
    )
    _native.raise_on("unpack", "_cpu", status)
    return result
