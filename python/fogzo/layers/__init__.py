"""Quantized layers, and how a model gets them."""

from __future__ import annotations

from .config import QuantConfig
from .quant_linear import QuantLinear
from .quantize import quantize_
from .summary import summary

__all__ = ["QuantConfig", "QuantLinear", "quantize_", "summary"]
