"""Checks that read no memory, made once for arguments of equal signatures.

A plan is what an operation's checks found: views, coordinates, cases. Its key holds all that those
checks read, so a call whose key is known has passed them; what they do not read (values, addresses,
overlaps) is checked in every call.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from . import _array

T = TypeVar("T")
MOST = 4096


class Plans(Generic[T]):
    """Plans by key; all are forgotten where there would be too many."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], T] = {}

    def find(self, key: tuple[Any, ...], checked: Callable[..., T], *args: Any) -> T:
        """The plan of a key, known or made."""
        plan = self.known(key)
        return self.make(key, checked, *args) if plan is None else plan

    def known(self, key: tuple[Any, ...]) -> T | None:
        """The plan of a key, or None: ``make`` it."""
        try:
            return self._known.get(key)
        except TypeError:  # an argument that cannot be a key, such as a list for a name
            return None

    def make(self, key: tuple[Any, ...], checked: Callable[..., T], *args: Any) -> T:
        """The plan that checked(*args) finds, which raises what the arguments deserve."""
        plan = checked(*args)
        if _has_array(key):
            return plan
        with contextlib.suppress(TypeError):  # as in ``known``
            if len(self._known) >= MOST:
                self._known.clear()
            self._known[key] = plan
        return plan


def entries(value: Any) -> tuple[Any, ...]:
    """The entries of a list, or one value for all, for a key.

    With their types, like every number of a key: True and 1.0 equal 1 and are refused.
    """
    if isinstance(value, (list, tuple)):
        return (*value, *map(type, value))
    return type(value), value  # the other way round than a list of one


def _has_array(key: tuple[Any, ...]) -> bool:
    """Whether a key has the type of an array: a number in one, which may come to hold another."""
    return any(
        _has_array(entry) if isinstance(entry, tuple) else _array.KINDS.get(entry) is not None
        for entry in key
        if isinstance(entry, (tuple, type))
    )
