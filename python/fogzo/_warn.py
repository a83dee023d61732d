"""Warnings that name the line of the user's program that led to them."""

from __future__ import annotations

import sys
import warnings

INSIDE = ("fogzo", "fogzo_command", "torch")  # an optimizer's hook is called by torch


def warn(text: str) -> None:
    """UserWarning at the innermost line that is neither ours nor torch's."""
    level, frame = 2, sys._getframe(1)
    while frame.f_back is not None and is_inside(frame.f_globals.get("__name__", "")):
        level, frame = level + 1, frame.f_back
    warnings.warn(text, stacklevel=level)


def is_inside(module: str) -> bool:
    return module.partition(".")[0] in INSIDE
