"""Checks that read no memory, made once for arguments of equal signatures.

A plan is what an operation's checks found: views, coordinates, cases. Its key holds all that those
checks read, so a call whose key is known has passed them; what they do not read (values, addresses,
overlaps) is checked in every call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

T = TypeVar("T")
MOST = 4096


class Plans(Generic[T]):
    """Plans by key; all are forgotten where there would be too many."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], T] = {}

    def find(self, key: tuple[Any, ...], make: Callable[..., T], *args: Any) -> T:
        """The plan of a key, or make(*args), which raises what the arguments deserve."""
        try:
            plan = self._known.get(key)
        except TypeError:  # an argument that cannot be a key, such as a list for a name
            return make(*args)
        if plan is None:
            plan = make(*args)
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[key] = plan
        return plan


def exact(*values: Any) -> tuple[Any, ...]:
    """Numbers for a key, with their types: True and 1.0 equal 1 and are refused."""
    return (*values, *map(type, values))
