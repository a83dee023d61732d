"""Reference of assemble_gradient: the specification, in plain torch."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .._check import Draw, View
from .._reference.grid import spread
from .._reference.noise import element_numbers
from .._reference.probe import perturbation, radius32, whitened


def assemble_gradient(
    grad: Tensor,
    scale: Tensor,
    differences: Tensor,
    draw: Draw,
    gamma: Any,
    norm: Any,
    view: View,
) -> Tensor:
    a = spread(scale, view.rows, view.cols)
    e = radius32(draw.surrogate, draw.noise, grad.device)
    gw = whitened(grad.reshape(view.rows, view.cols), a, e)
    k = element_numbers(view.rows, view.cols, draw.offset, draw.row_pitch, grad.device)
    total = None
    for i, difference in enumerate(differences.float()):
        probe = draw.first_probe + i
        d = perturbation(
            k, gw, draw.surrogate, draw.noise, draw.seed, draw.step, draw.tensor, probe, gamma, norm
        )
        total = difference * d if total is None else total + difference * d
    assert total is not None
    n = torch.tensor(float(draw.probes), dtype=torch.float32, device=grad.device)
    result: Tensor = total * torch.div(torch.ones_like(a), n * ((e * e) * a))
    return result.reshape(view.shape)


def assemble_gradient_many(calls: list[dict[str, Any]]) -> list[Tensor]:
    return [assemble_gradient(**call) for call in calls]
