"""Warnings that name the line of the user's program that led to them."""

from __future__ import annotations

from .._warn import is_inside, warn

__all__ = ["is_inside", "warn"]
