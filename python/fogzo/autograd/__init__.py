"""Thin autograd Functions: one operation forward, one backward, a list of what is kept."""

from __future__ import annotations

from .coded_linear import coded_linear
from .fake_quantize import fake_quantize
from .integer_linear import integer_linear
from .rotate import rotate

__all__ = ["coded_linear", "fake_quantize", "integer_linear", "rotate"]
