"""Public operations: codes to packed bytes and back."""

from __future__ import annotations

from typing import Any

from .. import _check, _dispatch, _outputs
from .._types import Packed, storage_bits


@_dispatch.operation
def pack(codes: Any, bits: int, *, out: Packed | None = None) -> Packed:
    """Pack codes along the last dimension.

    Code k of a byte lies in bits k * b .. (k + 1) * b - 1, lowest first, b the next of 1, 2, 4, 8
    from ``bits``; each row is padded to a whole byte with code 0.

    Args:
        codes: uint8 [..., K], at least one dimension, each below 2^bits.
        bits: 1..8; ternary codes take 2.
        out: a Packed of the result's data shape, width and shape, apart from codes in memory.

    Returns:
        Packed with data uint8 [..., ceil(K * b / 8)], bits b and shape [..., K].

    Raises:
        ValueError: bits outside 1..8, (CPU) a code that does not fit, another output.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), bits=2).data.tolist()
        [[57]]

    Source: ours; at 1 bit the order of numpy.packbits with bitorder="little".
    """
    op = "pack"
    v = _check.view(op, "codes", codes, out=None if out is None else out.data)
    _check.dtype(op, "codes", codes, "uint8")
    bits = _check.integer(op, "bits", bits, 1, 9, "an int in 1..8")
    if v.device == "cpu" and bits < 8 and 0 not in v.shape and int(codes.max()) >= 2**bits:
        _check.fail(op, "codes", f"has the value {int(codes.max())}", f"values below {2**bits}")
    stored = storage_bits(bits)
    if out is not None:
        _outputs.packed_out(op, out, v.shape, stored)
        _outputs.no_overlap(op, out.data, codes=codes)
    packed: Packed = _dispatch.call(op, v.kind, v.device, (), out=out, codes=codes, bits=stored)
    return packed


@_dispatch.operation
def unpack(packed: Packed, *, out: Any = None) -> Any:
    """The codes inside a Packed: code k of a byte is (byte >> (k * bits)) & (2^bits - 1).

    Args:
        packed: as ``pack`` returns it.
        out: uint8 output of packed.shape, apart from packed.data in memory.

    Returns:
        uint8 of packed.shape.

    Raises:
        ValueError: data whose shape does not match bits and shape, another output.
        TypeError: not a Packed, another dtype or kind of array.

    Example:
        >>> import torch
        >>> unpack(pack(torch.tensor([[1, 2, 3]], dtype=torch.uint8), bits=2)).tolist()
        [[1, 2, 3]]

    Source: ours, as ``pack``.
    """
    op = "unpack"
    _check.packed(op, packed)
    v = _check.view(op, "packed.data", packed.data, out=out)
    _outputs.out(op, out, packed.shape, "uint8")
    _outputs.no_overlap(op, out, packed=packed.data)
    return _dispatch.call(op, v.kind, v.device, (), out=out, packed=packed)
