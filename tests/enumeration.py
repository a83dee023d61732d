"""Every one of the 65,536 noise values once, taken from what fogzo_kernels itself draws."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import oracle
import torch

import fogzo_kernels as fk

COUNT = 2**20  # draws: the chance that a half is missing is under 1 %; the seed here misses none
HALVES = 2**16
WHERE = {"seed": 1, "step": 0, "tensor": 0}


@functools.cache
def places() -> Any:
    """An element number for each half, [65536]."""
    k = oracle.numbers((COUNT,))
    halves = oracle.halves(k, probe=0, **WHERE)[0]
    found, first = np.unique(halves, return_index=True)
    assert len(found) == HALVES
    return first


@functools.cache
def bit_places() -> Any:
    """An element number with rademacher bit 0, and one with bit 1."""
    bits = oracle.bits(oracle.numbers((COUNT,)), probe=0, **WHERE)[0]
    return np.array([int(np.argmin(bits)), int(np.argmax(bits))])


def where_all(noise: str) -> Any:
    return places() if noise == "published" else bit_places()


@functools.cache
def draws(surrogate: str, noise: str = "published") -> Any:
    """u for each half (or for bits 0 and 1) as fk.noise gives it, float64."""
    u = fk.noise((COUNT,), surrogate, probe=0, noise=noise, **WHERE).numpy()
    return u[where_all(noise)].astype(np.float64)


def bins_of(surrogate: str, noise: str = "published") -> Any:
    """w = e u, float64; u has been rounded after its division by e, so round back to float32."""
    e = np.float32(fk.radius(surrogate, noise))
    return (draws(surrogate, noise).astype(np.float32) * e).astype(np.float64)


def sides(x: float, a: float, grid: Any, surrogate: str, noise: str) -> tuple[Any, Any]:
    """Both quantized sides of one weight at x bins for every noise value (gamma = 1), float64."""
    w = torch.full((COUNT,), x * a)
    got = fk.perturb_quantize(
        w, w, torch.tensor(a), grid, surrogate, gamma=1.0, norm=0.0, noise=noise, **WHERE
    ).numpy()[:, where_all(noise)]
    return got[0].astype(np.float64), got[1].astype(np.float64)


def gradients(a: float, surrogate: str, noise: str) -> Any:
    """G of one weight for every noise value where D = 1 (gamma = 1), float64."""
    g = fk.assemble_gradient(
        torch.zeros(COUNT), torch.tensor(a), torch.ones(1), surrogate,
        gamma=1.0, norm=0.0, noise=noise, **WHERE,
    )  # fmt: skip
    return g.numpy()[where_all(noise)].astype(np.float64)
