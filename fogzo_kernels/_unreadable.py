"""Which argument no kernel can read: looked for once a call has failed.

In every call that would cost as much as the smallest launches.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import _array
from ._errors import fail
from ._types import arrays_of

NULL = "pointer is null"  # of a launcher's text, csrc/include/fogzo/status.h


def explain(op: str, error: Exception, arguments: dict[str, Any]) -> None:
    """Name the argument behind an error of torch's own, or of a launcher about a null pointer.

    Does nothing where a check (or Python) has named one, or where all arguments can be read.
    """
    text = str(error)
    if text.startswith((f"{op}: ", f"{op}() ")) and NULL not in text:
        return
    for name, array in _arrays(arguments):
        if _array.kind(array) == "torch":
            strided(op, name, array)
            memory(op, name, array)


def strided(op: str, argument: str, tensor: Any) -> None:
    """Refuse a tensor that is sparse or nested."""
    if not _array.is_strided(tensor):
        fail(op, argument, f"has the layout {tensor.layout}", "torch.strided", TypeError)
    if tensor.is_nested:
        fail(op, argument, "is a nested tensor", "a plain one", TypeError)


def memory(op: str, argument: str, array: Any) -> None:
    """Refuse a tensor whose elements have no address, like those of most wrapping subclasses."""
    if not _array.has_memory(array):
        fail(op, argument, *_array.NO_MEMORY)


def _arrays(arguments: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, value in arguments.items():
        if isinstance(value, (list, tuple)):
            yield from _arrays({f"{name}[{i}]": entry for i, entry in enumerate(value)})
        else:
            yield from arrays_of(name, value).items()
