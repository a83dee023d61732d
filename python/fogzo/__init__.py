"""Training of low-bit networks in PyTorch: quantized layers and first-order-guided estimators.

Example:
    >>> model = fogzo.quantize_(model, fogzo.QuantConfig(grid="mid-rise", bits=2))
    >>> est = fogzo.FOGZO(model)
    >>> loss = est.backward(lambda: criterion(model(x), y))
    >>> optimizer.step(); optimizer.zero_grad()

Source: Yang & Aamodt, "Improving the Straight-Through Estimator with Zeroth-Order Information",
arXiv 2510.23926.
"""

from __future__ import annotations

from importlib.util import find_spec

if find_spec("torch") is None:
    raise ImportError("fogzo needs torch >= 2.11: pip install torch", name="torch")

from torch import __version__ as _found

if tuple(int(part) for part in _found.split(".")[:2]) < (2, 11):
    text = f"fogzo needs torch >= 2.11, found {_found}: pip install --upgrade torch"
    raise ImportError(text, name="torch")

from fogzo_kernels import __version__
from fogzo_kernels import (
    _library as _library,  # registers torch.ops.fogzo, which exported programs call
)

from .estimators import FOGZO, NSPSA, STE
from .layers import (
    QuantConfig,
    QuantConv1d,
    QuantConv2d,
    QuantEmbedding,
    QuantLinear,
    disable_quantization,
    enable_quantization,
    quantize_,
    summary,
)
from .monitoring import Logger, Oscillation, diagnose

__all__ = [
    "FOGZO",
    "NSPSA",
    "STE",
    "Logger",
    "Oscillation",
    "QuantConfig",
    "QuantConv1d",
    "QuantConv2d",
    "QuantEmbedding",
    "QuantLinear",
    "__version__",
    "diagnose",
    "disable_quantization",
    "enable_quantization",
    "quantize_",
    "summary",
]
