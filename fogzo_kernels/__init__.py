"""Low-bit quantization and zeroth-order probe operations on plain arrays, without autograd.

Every operation takes torch tensors or NumPy arrays, returns the caller's kind, and runs on the
first backend that takes the call: ``reference`` (torch, the specification), ``cpu`` (native),
``triton`` or ``cuda``. Import needs none of them, nor torch.
"""

from __future__ import annotations

from ._dispatch import backends, capabilities, has_kernel, use_backend, why_not
from ._surrogate import radius
from ._types import Flips, Grid, Packed
from .assemble_gradient import assemble_gradient, assemble_gradient_many
from .compute_scale import compute_scale
from .fake_quantize import fake_quantize, fake_quantize_backward
from .hadamard import hadamard
from .hadamard_quantize import hadamard_quantize
from .noise import noise
from .pack import pack, unpack
from .perturb_quantize import perturb_quantize, perturb_quantize_many
from .probe_matmul import probe_matmul
from .quantize import dequantize, quantize
from .quantize_activation import quantize_activation
from .whitened_norm import whitened_norm

__version__ = "0.1.0"

__all__ = [
    "Flips",
    "Grid",
    "Packed",
    "assemble_gradient",
    "assemble_gradient_many",
    "backends",
    "capabilities",
    "compute_scale",
    "dequantize",
    "fake_quantize",
    "fake_quantize_backward",
    "hadamard",
    "hadamard_quantize",
    "has_kernel",
    "noise",
    "pack",
    "perturb_quantize",
    "perturb_quantize_many",
    "probe_matmul",
    "quantize",
    "quantize_activation",
    "radius",
    "unpack",
    "use_backend",
    "whitened_norm",
    "why_not",
]
