"""Thin autograd Functions: one operation forward, one backward, a list of what is kept."""

from __future__ import annotations

from .coded_product import coded_product
from .fake_quantize import fake_quantize
from .integer_linear import integer_linear
from .rotate import rotate

__all__ = ["coded_product", "fake_quantize", "integer_linear", "rotate"]
