"""Every check of an output that the caller gives: its shape, its memory, what else lies there."""

from __future__ import annotations

import bisect
from typing import Any

from . import _array, _check
from ._errors import fail


def out(op: str, array: Any, expected: tuple[int, ...], dtype_name: str, name: str = "out") -> None:
    """An output to write, or None: exact shape and dtype, row-major and dense, writable."""
    fits(op, array, expected, dtype_name, name)
    written(op, array, name)


def fits(
    op: str, array: Any, expected: tuple[int, ...], dtype_name: str, name: str = "out"
) -> None:
    """What ``out`` checks without reading where the array lies."""
    if array is not None:
        _check.dtype(op, name, array, dtype_name)
        _check.shape(op, name, array, expected)


def written(op: str, array: Any, name: str = "out") -> None:
    """An output whose memory a kernel can write, or None; autograd is told of the write to come."""
    if array is None:
        return
    reason = _array.begin_write(array)
    if reason is not None and _array.device_type(array) != "meta":
        fail(op, name, *reason)


def no_overlap(
    op: str, array: Any, name: str = "out", *, same: bool = False, **inputs: Any
) -> None:
    """Refuse an output that shares memory with an input, unless (``same``) it is that input."""
    if array is None:
        return
    low, high = _array.extent(array)
    for argument, other in inputs.items():
        if other is None:
            continue
        other_low, other_high = _array.extent(other)
        if other_low >= high or low >= other_high or low >= high or other_low >= other_high:
            continue
        if not (same and (low, high) == (other_low, other_high) and _array.is_contiguous(other)):
            fail(op, name, f"overlaps {argument} in memory", f"memory apart from {argument}")


def are_apart(outputs: list[Any], inputs: list[Any]) -> bool:
    """Whether outputs share memory neither with each other nor with an input: ``apart`` is slow."""
    spans = sorted(map(_array.extent, outputs))
    starts = [low for low, _ in spans]
    for i, (_, high) in enumerate(spans[:-1]):
        if high > starts[i + 1]:
            return False
    for low, high in map(_array.extent, inputs):
        before = bisect.bisect_left(starts, high)  # the outputs that begin below its end
        if before and low < spans[before - 1][1]:
            return False
    return True


def apart(op: str, outputs: dict[str, Any], inputs: dict[str, Any]) -> None:
    """Refuse outputs that overlap each other or any input; entries that are None are left out."""
    spans = [(*span, True) for span in _spans(outputs)]
    first, end = min(spans, default=(0,))[0], max((span[1] for span in spans), default=0)
    spans += [(*span, False) for span in _spans(inputs) if span[0] < end and first < span[1]]
    last: dict[bool, tuple[int, str]] = {True: (0, ""), False: (0, "")}  # by written: furthest end
    clashes = {}
    for low, high, name, is_written in sorted(spans):
        for before in (True, False) if is_written else (True,):
            other_end, other = last[before]
            if low < other_end:
                output, clash = (name, other) if is_written else (other, name)
                clashes[output] = clash
        last[is_written] = max(last[is_written], (high, name))
    for output in filter(clashes.get, outputs):
        clash = clashes[output]
        fail(op, output, f"overlaps {clash} in memory", f"memory apart from {clash}")


def _spans(arrays: dict[str, Any]) -> list[tuple[int, int, str]]:
    """First and one-past-last address and name of the arrays that have bytes."""
    found = []
    for name, array in arrays.items():
        if array is not None:
            low, high = _array.extent(array)
            if low < high:
                found.append((low, high, name))
    return found


def packed_out(op: str, array: Any, dims: tuple[int, ...], bits: int) -> None:
    if array is None:
        return
    _check.packed(op, array, argument="out")
    if array.bits != bits or tuple(array.shape) != dims:
        fail(op, "out", f"has bits {array.bits} and shape {array.shape}", f"{bits} and {dims}")
    out(op, array.data, _check.packed_shape(dims, bits), "uint8", "out.data")


def flips_out(op: str, array: Any, dims: tuple[int, ...], sides: int) -> None:
    """A Flips to write: its capacity is index.shape[1]."""
    out(op, array.base, dims, "uint8", "out.base")
    out(op, array.count, (sides,), "int64", "out.count")
    if len(array.index.shape) != 2:
        fail(op, "out.index", f"has shape {tuple(array.index.shape)}", f"({sides}, capacity)")
    capacity = array.index.shape[1]
    out(op, array.index, (sides, capacity), "int64", "out.index")
    out(op, array.code, (sides, capacity), "uint8", "out.code")
