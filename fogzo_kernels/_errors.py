"""The one place where an error text is built."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NoReturn


def fail(
    op: str, argument: str, got: str, expected: str, error: type[Exception] = ValueError
) -> NoReturn:
    """Raise ``op: argument got, expected expected``, as in

    ``quantize: scale has shape (3, 1), expected (4, 1) to match w (4, 128)``.
    """
    raise error(f"{op}: {argument} {got}, expected {expected}")


def choice(op: str, argument: str, value: object, choices: Sequence[str]) -> None:
    if value not in choices:
        fail(op, argument, f"is {value!r}", f"one of {', '.join(choices)}")


def is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)
