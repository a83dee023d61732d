"""Quantized layers, and how a model gets them."""

from __future__ import annotations

from .config import QuantConfig
from .quant_conv import QuantConv1d, QuantConv2d
from .quant_embedding import QuantEmbedding
from .quant_layer import QuantLayer
from .quant_linear import QuantLinear
from .quantize import quantize_
from .summary import summary
from .switch import disable_quantization, enable_quantization

__all__ = [
    "QuantConfig",
    "QuantConv1d",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantLayer",
    "QuantLinear",
    "disable_quantization",
    "enable_quantization",
    "quantize_",
    "summary",
]
