"""Native backends of pack and unpack: cpu and cuda."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _check, _native
from .._types import Packed


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def pack_cpu(codes: Any, bits: int, out: Packed | None) -> Packed:
    return _pack(_native.on_cpu(), codes, bits, out)


def pack_cuda(codes: Any, bits: int, out: Packed | None) -> Packed:
    with _native.on_cuda(codes.device) as at:
        return _pack(at, codes, bits, out)


def unpack_cpu(packed: Packed, out: Any) -> Any:
    return _unpack(_native.on_cpu(), packed, out)


def unpack_cuda(packed: Packed, out: Any) -> Any:
    with _native.on_cuda(packed.data.device) as at:
        return _unpack(at, packed, out)


def _pack(at: _native.Place, codes: Any, bits: int, out: Packed | None) -> Packed:
    codes = _array.contiguous(codes)
    shape = tuple(codes.shape)
    if out is None:
        kind = _array.kind(codes) or "torch"
        data = _array.empty(_check.packed_shape(shape, bits), "uint8", kind, at.device)
        out = Packed(data, bits, shape)
    status = at.module.pack(
        _array.pointer(codes),
        _array.pointer(out.data),
        prod(shape[:-1]),
        shape[-1],
        bits,
        at.last,
    )
    _native.raise_on("pack", at.name, status)
    return out


def _unpack(at: _native.Place, packed: Packed, out: Any) -> Any:
    data = _array.contiguous(packed.data)
    shape = tuple(packed.shape)
    result = out
    if result is None:
        result = _array.empty(shape, "uint8", _array.kind(data) or "torch", at.device)
    status = at.module.unpack(
        _array.pointer(data),
        _array.pointer(result),
        prod(shape[:-1]),
        shape[-1],
        packed.bits,
        at.last,
    )
    _native.raise_on("unpack", at.name, status)
    return result
