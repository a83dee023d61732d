"""Native backends of pack and unpack: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _check, _native
from .._check import View
from .._types import Packed


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_pack(view: View, bits: int) -> Callable[..., Packed]:
    """The cpu launch of codes of one shape."""
    shape = view.shape
    new = _array.maker(_check.packed_shape(shape, bits), "uint8", view.kind)
    settled = prod(shape[:-1]), shape[-1], bits
    pack = _native.one_output("pack", view.kind, new, *settled)

    def launch(out: Packed | None, codes: Any) -> Packed:
        if out is None:
            return Packed(pack(None, codes), bits, shape)
        pack(out.data, codes)
        return out

    return launch


def pack_cuda(codes: Any, bits: int, out: Packed | None) -> Packed:
    shape = tuple(codes.shape)
    dims, data = _check.packed_shape(shape, bits), None if out is None else out.data
    settled = prod(shape[:-1]), shape[-1], bits
    data = _native.one_output_cuda("pack", data, dims, "uint8", (codes,), *settled)
    return Packed(data, bits, shape) if out is None else out


def unpack_cpu(packed: Packed, out: Any) -> Any:
    return _unpack(_native.on_cpu(), packed, out)


def unpack_cuda(packed: Packed, out: Any) -> Any:
    with _native.on_cuda(packed.data.device) as at:
        return _unpack(at, packed, out)


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
