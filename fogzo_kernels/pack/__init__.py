"""Public operations: codes to packed bytes and back."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Packed, arrays_of, storage_bits


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
    key = _array.signature(codes), bits, type(bits)
    plan = _PLANS.find(key, _checked, op, codes, bits)
    v, above = plan.view, plan.above
    if above is not None and int(codes.max()) >= above:
        _check.fail(op, "codes", f"has the value {int(codes.max())}", f"values below {above}")
    if out is not None:
        _outputs.packed_out(op, out, v.shape, plan.stored)
        _check.view(op, "codes", codes, **arrays_of("out", out))
        _outputs.no_overlap(op, out.data, codes=codes)
    launch = plan.launches[_dispatch.forced()]
    packed: Packed
    if launch is not None:
        packed = launch(out, codes)
    else:
        packed = _dispatch.call(op, v.kind, v.device, (), out=out, codes=codes, bits=plan.stored)
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


class _Plan(NamedTuple):
    view: _check.View
    above: int | None  # codes that do not fit, where they are looked for
    stored: int  # bits
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(op: str, codes: Any, bits: int) -> _Plan:
    """Check what pack takes but for values and the output."""
    v = _check.view(op, "codes", codes)
    _check.dtype(op, "codes", codes, "uint8")
    bits = _check.integer(op, "bits", bits, 1, 9, "an int in 1..8")
    read = v.device == "cpu" and bits < 8 and 0 not in v.shape
    stored = storage_bits(bits)
    launches = _dispatch.Launches(op, v, (), v, stored)
    return _Plan(v, 2**bits if read else None, stored, launches)
