"""One probe's perturbation d = A * gw + B * (e u), in bins, for the two operations that need it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._surrogate import radius
from .noise import probe_sign, scaled_noise

MIN_NORM = 2.0**-100


def radius32(surrogate: str, noise: str, device: Any) -> Tensor:
    return torch.tensor(radius(surrogate, noise), dtype=torch.float64, device=device).float()


def whitened(g: Tensor, a: Tensor, e: Tensor) -> Tensor:
    """gw = g * (a * e), float32."""
    return g * (a * e)


def perturbation(
    k: Tensor,
    gw: Tensor,
    surrogate: str,
    noise: str,
    seed: Any,
    step: Any,
    tensor: int,
    probe: int,
    gamma: Any,
    norm: Any,
) -> Tensor:
    """d [rows, cols]; A = (c1 * s) / N, c1 and B rounded once from float64."""
    device = gw.device
    gamma64 = torch.as_tensor(gamma, dtype=torch.float64, device=device)
    c1 = (radius(surrogate, noise) * torch.sqrt(1 - gamma64)).float()
    b = torch.sqrt(gamma64).float()
    n = torch.as_tensor(norm, dtype=torch.float32, device=device)
    quotient = torch.div(c1 * probe_sign(seed, step, probe, device), n)
    a = torch.where(n < MIN_NORM, torch.zeros_like(quotient), quotient)
    eu = scaled_noise(k, surrogate, noise, seed, step, tensor, probe)
    return a * gw + b * eu
