"""Reference of noise: the specification, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._check import Draw, View
from .._reference.noise import element_numbers, scaled_noise
from .._reference.probe import radius32


def noise(draw: Draw, device: Any, view: View) -> Tensor:
    k = element_numbers(view.rows, view.cols, draw.offset, draw.row_pitch, device)
    eu = scaled_noise(
        k, draw.surrogate, draw.noise, draw.seed, draw.step, draw.tensor, draw.first_probe
    )
    return torch.div(eu, radius32(draw.surrogate, draw.noise, device)).reshape(view.shape)
