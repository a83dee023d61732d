"""Every scale rule of DESIGN section 2 in torch."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._scale import MIN_DYNAMIC_SCALE, MIN_SCALE, mean_factor, multiple
from .._types import Grid


def scale_of_rows(elements: Tensor, grid: Grid, rule: str) -> Tensor:
    """float32 [R] of float64 elements [R, n]."""
    if rule == "absmax":
        # on the device: a GPU multiplies by the reciprocal of a number that lies on the host
        v_max = torch.tensor(grid.v_max, device=elements.device)
        largest = torch.div(elements.abs().amax(1).float(), v_max)
        a = torch.nextafter(largest, torch.full_like(largest, math.inf))
        return a.clamp(min=MIN_DYNAMIC_SCALE)
    if rule == "absmean":
        return elements.abs().mean(1).float().clamp(min=MIN_DYNAMIC_SCALE)
    if rule == "lsq":
        a = mean_factor(grid) * elements.abs().mean(1)
    elif rule == "stretched":
        a = elements.abs().amax(1) / (grid.v_max + 0.5)
    else:  # fixed, quest
        a = multiple(grid) * elements.square().mean(1).sqrt()
    return a.float().clamp(min=MIN_SCALE)
