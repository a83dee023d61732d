"""The nearest values and codes of a grid in stock PyTorch, as every peer rounds.

bits: 1 is sign, 1.58 ternary, 2..8 mid-rise. A name with _ works in place.
"""

from __future__ import annotations

import torch
from torch import Tensor


def steps(bits: float) -> tuple[float, int, int]:
    """Shift, lowest and highest: value = clamp(round(x - shift), lowest, highest) + shift."""
    if bits < 2:
        return 0.0, -1, 1
    half = 2 ** (int(bits) - 1)
    return 0.5, -half, half - 1


def nearest(x: Tensor, bits: float) -> Tensor:
    """Values, in bins."""
    if bits == 1:
        return torch.where(x >= 0, 1.0, -1.0)
    shift, low, high = steps(bits)
    if not shift:
        return x.round().clamp(low, high)
    return (x - shift).round().clamp(low, high) + shift


def nearest_(x: Tensor, bits: float) -> Tensor:
    if bits == 1:
        return x.ge_(0).mul_(2).sub_(1)
    shift, low, high = steps(bits)
    if not shift:
        return x.round_().clamp_(low, high)
    return x.sub_(shift).round_().clamp_(low, high).add_(shift)


def on_grid(w: Tensor, scale: Tensor, bits: float = 2) -> Tensor:
    """Values in the unit of w."""
    return nearest(w * (1 / scale), bits) * scale


def codes(x: Tensor, bits: float) -> Tensor:
    """Codes from 0 on, uint8."""
    if bits == 1:
        return (x >= 0).to(torch.uint8)
    shift, low, high = steps(bits)
    shifted = x - shift if shift else x
    return (shifted.round().clamp(low, high) - low).to(torch.uint8)


def codes_(x: Tensor, bits: float) -> Tensor:
    """Codes as floats."""
    if bits == 1:
        return x.ge_(0)
    shift, low, high = steps(bits)
    if shift:
        x.sub_(shift)
    return x.round_().clamp_(low, high).sub_(low)
