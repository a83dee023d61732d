"""Results and arguments as tensors or NumPy arrays, also inside lists, dicts, Packed and Flips."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ._array import Array, kind
from ._types import Flips, Packed


def to_torch(value: Any) -> Any:
    """Arrays inside ``value`` (lists, dicts, Packed, Flips) as tensors that share their memory."""
    return each(value, _tensor)


def dense(value: Any) -> Any:
    """Tensors inside ``value`` in row-major order; torch keeps the order of a transposed input."""
    return each(value, lambda a: a.contiguous())


def to_numpy(value: Any) -> Any:
    return each(value, lambda a: a.numpy() if kind(a) == "torch" else a)


def each(value: Any, one: Callable[[Array], Any]) -> Any:
    """``one`` of every array inside ``value``."""
    if isinstance(value, Packed):
        return Packed(one(value.data), value.bits, value.shape)
    if isinstance(value, Flips):
        return Flips(*(one(a) for a in (value.base, value.index, value.code, value.count)))
    if isinstance(value, (list, tuple)):
        return type(value)(each(item, one) for item in value)
    if isinstance(value, dict):
        return {name: each(item, one) for name, item in value.items()}
    return one(value) if kind(value) is not None else value


def _tensor(array: Array) -> Any:
    if kind(array) != "numpy":
        return array
    import torch

    size, flags = array.itemsize, array.flags
    strange = any(stride < 0 or stride % size for stride in array.strides)
    if strange or not (flags.writeable and flags.aligned):
        array = array.copy()
    return torch.from_numpy(array)


def store(result: Any, out: Any) -> None:
    """Copy a reference result into those parts of the caller's output that are given."""
    if isinstance(out, Packed):
        out.data.copy_(result.data)
    elif isinstance(out, Flips):
        for name in ("base", "index", "code", "count"):
            getattr(out, name).copy_(getattr(result, name))
    elif isinstance(out, (list, tuple)):
        for one, into in zip(result, out, strict=True):
            store(one, into)
    elif out is not None:
        out.copy_(result)


def prefer(given: Any, result: Any) -> Any:
    """The caller's own outputs where given, else the new arrays."""
    if isinstance(given, (list, tuple)):
        return type(given)(prefer(one, new) for one, new in zip(given, result, strict=True))
    return result if given is None else given


def data_bytes(array: Array) -> bytes:
    """The bytes of a uint8 array in row-major order."""
    return bytes(array.reshape(-1).tolist())
