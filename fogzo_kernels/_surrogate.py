"""Surrogates and noises: names, numbers for the kernels, radii, and which pairs exist."""

from __future__ import annotations

import math

from . import _errors
from ._types import Grid

SURROGATES = ("identity", "clipped", "hardtanh", "tanh", "approx_sign", "trust")
NOISES = ("published", "rademacher")
SIGN_ONLY = ("hardtanh", "tanh", "approx_sign")

_PUBLISHED_RADIUS = {
    "identity": 1 / (2 * math.sqrt(3)),
    "clipped": 1 / (2 * math.sqrt(3)),
    "trust": 1 / (2 * math.sqrt(3)),
    "hardtanh": 1 / math.sqrt(3),
    "tanh": math.pi / math.sqrt(12),
    "approx_sign": 1 / math.sqrt(6),
}


def radius(surrogate: str, noise: str = "published") -> float:
    """Radius e of the perturbation, in bins: the standard deviation of e * u.

    Args:
        surrogate: one of identity, clipped, hardtanh, tanh, approx_sign, trust.
        noise: "published" (the noise whose smoothing the surrogate is) or "rademacher" (u = +-1;
            e = 1 for hardtanh, tanh and approx_sign, else 1/2).

    Returns:
        The float64 radius; kernels round it once to float32.

    Raises:
        ValueError: an unknown name.

    Example:
        >>> radius("hardtanh", "rademacher")
        1.0

    Source: Yang & Aamodt, arXiv 2510.23926 (published); ours (rademacher).
    """
    check("radius", surrogate, noise)
    if noise == "rademacher":
        return 1.0 if surrogate in SIGN_ONLY else 0.5
    return _PUBLISHED_RADIUS[surrogate]


def check(op: str, surrogate: str, noise: str = "published", grid: Grid | None = None) -> None:
    """Refuse an unknown name, or a pair of surrogate, noise and grid that does not exist."""
    if surrogate not in SURROGATES:
        _errors.fail(op, "surrogate", f"is {surrogate!r}", f"one of {', '.join(SURROGATES)}")
    if noise not in NOISES:
        _errors.fail(op, "noise", f"is {noise!r}", f"one of {', '.join(NOISES)}")
    if grid is None or (surrogate == "trust" and noise == "published"):
        return
    on_sign = grid.kind == "sign"
    if on_sign and surrogate == "trust":
        _errors.fail(
            op,
            "surrogate",
            "is 'trust' with noise 'rademacher'",
            "noise 'published' for grid 'sign'",
        )
    if surrogate != "trust" and (surrogate in SIGN_ONLY) != on_sign:
        pairs = SIGN_ONLY if on_sign else ("identity", "clipped")
        _errors.fail(
            op,
            "surrogate",
            f"is {surrogate!r}",
            f"one of {', '.join((*pairs, 'trust'))} for grid {grid.kind!r}",
        )


def chosen(surrogate: str | None, grid: Grid | None) -> str:
    """The surrogate that a call with a grid means: None is the grid's default.

    Example:
        >>> chosen(None, Grid("sign"))
        'hardtanh'
    """
    if surrogate is not None:
        return surrogate
    return "identity" if grid is None else grid.default_surrogate


def number(surrogate: str) -> int:
    return SURROGATES.index(surrogate)


def noise_number(noise: str) -> int:
    return NOISES.index(noise)
