"""Thin autograd Functions: one operation forward, one backward, a list of what is kept."""

from __future__ import annotations

from .fake_quantize import fake_quantize

__all__ = ["fake_quantize"]
