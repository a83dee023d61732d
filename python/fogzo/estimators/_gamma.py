"""gamma = 1 - beta: its automatic value, its ramp, and when it is worth a warning."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

import fogzo_kernels as fk
from fogzo_kernels import _check

from .._warn import warn

MANTISSA = 23  # fraction bits of a float32


def max_gamma(op: str, gamma: float | str, d: int) -> float:
    """gamma as a number; "auto" is min(1e-3, 1 / d) for d perturbed weights."""
    if gamma == "auto":
        return min(1e-3, 1 / max(d, 1))
    if isinstance(gamma, (str, bool)) or not isinstance(gamma, (int, float)):
        _check.fail(op, "gamma", f"is {gamma!r}", '"auto" or a float in [0, 1]', TypeError)
    if not 0 <= gamma <= 1:
        _check.fail(op, "gamma", f"is {gamma!r}", '"auto" or a float in [0, 1]')
    return float(gamma)


def at(gamma: float, ramp_steps: int | None, t: int) -> float:
    """gamma at schedule step t: constant, or linear from 0 over ramp_steps."""
    return gamma if ramp_steps is None else gamma * min(1.0, t / ramp_steps)


def on_device(gamma: float, ramp_steps: int | None, t: Tensor) -> Tensor:
    """The same where t is a 0-dim tensor that no host reads: 0-dim float64, the same bits."""
    if ramp_steps is None:
        return torch.full_like(t, gamma, dtype=torch.float64)
    return (t.double() / ramp_steps).clamp(max=1.0) * gamma


def warn_regime(op: str, gamma: float, d: int) -> None:
    """Warn where |sqrt(gamma) u| is over ten times the guide's length."""
    noise = math.sqrt(gamma * d)
    if noise > 10:
        warn(
            f"{op}: gamma {gamma:.3g} with {d:,} weights: noise is {noise:.0f}x the guide: "
            f"n-SPSA regime; gamma 'auto' would be {min(1e-3, 1 / d):.3g}"
        )


def warn_drowning(
    op: str, gamma: float, noise: str, kinds: Iterable[tuple[fk.Grid | None, str]]
) -> None:
    """Warn where the perturbation is lost in the rounding of a float32 weight of |v_max| bins."""
    if gamma == 0:
        return
    for grid, surrogate in sorted(set(kinds), key=str):
        if grid is None:
            continue
        largest = max(abs(grid.v_min), grid.v_max)
        ulp = 2.0 ** (math.frexp(largest)[1] - 1 - MANTISSA)
        size = math.sqrt(gamma) * largest_noise(surrogate, noise)
        if size < 64 * ulp:
            warn(
                f"{op}: gamma {gamma:.3g} perturbs a weight by at most {size:.2g} bins, under 64 "
                f"float32 roundings at {largest:g} bins ({64 * ulp:.2g}) of grid {grid.kind}: the "
                "perturbation drowns in float32; expected a larger gamma"
            )
            return


def largest_noise(surrogate: str, noise: str) -> float:
    """max |e u| in bins; e where the noise is unbounded (tanh)."""
    if noise == "rademacher" or surrogate == "tanh":
        return fk.radius(surrogate, noise)
    return 1.0 if surrogate in ("hardtanh", "approx_sign") else 0.5
