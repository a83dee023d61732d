"""Reference of perturb_quantize: the specification, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check
from .._check import Draw, View
from .._reference import pack as bytes_of
from .._reference.grid import code, code_value, in_bins, spread
from .._reference.noise import element_numbers
from .._reference.probe import perturbation, radius32, whitened
from .._types import Flips, Grid, Packed


def perturb_quantize(
    w: Tensor,
    grad: Tensor,
    scale: Tensor,
    grid: Grid | None,
    draw: Draw,
    gamma: Any,
    norm: Any,
    form: str,
    sides: int,
    count_flips: bool,
    capacity: int | None,
    view: View,
    shape: tuple[int, ...],
) -> tuple[Any, Tensor | None]:
    """The result in its form, and per side how many codes differ from those of w."""
    a = spread(scale, view.rows, view.cols)
    latent = w.reshape(view.rows, view.cols)
    x = in_bins(latent, a)
    e = radius32(draw.surrogate, draw.noise, w.device)
    gw = whitened(grad.reshape(view.rows, view.cols), a, e)
    k = element_numbers(view.rows, view.cols, draw.offset, draw.row_pitch, w.device)
    directions = [
        perturbation(
            k, gw, draw.surrogate, draw.noise, draw.seed, draw.step, draw.tensor, i, gamma, norm
        )
        for i in range(draw.first_probe, draw.first_probe + draw.probes)
    ]
    if grid is None:
        moved = [y for d in directions for y in (latent + a * d, latent - a * d)[:sides]]
        none = torch.zeros(len(moved), dtype=torch.int64, device=w.device)
        return torch.stack(moved).reshape(shape), none if count_flips else None
    codes = torch.stack([code(y, grid) for d in directions for y in (x + d, x - d)[:sides]])
    base = code(x, grid)
    flipped = codes != base
    counts = flipped.flatten(1).sum(1) if count_flips else None
    if form == "values":
        return (a * code_value(codes, grid)).reshape(shape), counts
    if form == "codes":
        return codes.reshape(shape), counts
    if form == "packed":
        bits = grid.storage_bits
        return Packed(bytes_of.pack(codes.reshape(shape), bits), bits, shape), counts
    return flips(base.reshape(view.shape), codes.flatten(1), flipped.flatten(1), capacity), counts


def flips(base: Tensor, codes: Tensor, flipped: Tensor, capacity: int | None) -> Flips:
    """Rows of element numbers and new codes, padded with -1 and 0 to the capacity."""
    count = flipped.sum(1)
    most = int(count.max()) if count.numel() else 0
    if capacity is None:
        capacity = most
    if most > capacity:
        _check.fail("perturb_quantize", "out", f"has room for {capacity} flips", f"{most}")
    index = torch.full((len(codes), capacity), -1, dtype=torch.int64, device=codes.device)
    new = torch.zeros((len(codes), capacity), dtype=torch.uint8, device=codes.device)
    for side in range(len(codes)):
        where = flipped[side].nonzero()[:, 0]
        index[side, : len(where)] = where
        new[side, : len(where)] = codes[side, where]
    return Flips(base, index, new, count)


def perturb_quantize_many(
    calls: list[dict[str, Any]], count_flips: bool
) -> tuple[list[Any], Tensor | None]:
    results = [perturb_quantize(**call, count_flips=count_flips) for call in calls]
    counts = [count for _, count in results if count is not None]
    return [result for result, _ in results], torch.stack(counts) if count_flips else None
