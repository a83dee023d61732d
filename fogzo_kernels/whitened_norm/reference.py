"""Reference of whitened_norm: the specification, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor

from .._check import View
from .._reference.grid import spread
from .._reference.probe import radius32, whitened


def whitened_norm(
    grads: list[Tensor], scales: list[Tensor], surrogates: list[str], noise: str, views: list[View]
) -> Tensor:
    total = torch.zeros((), dtype=torch.float64, device=grads[0].device)
    for g, scale, surrogate, v in zip(grads, scales, surrogates, views, strict=True):
        e = radius32(surrogate, noise, g.device)
        gw = whitened(g.reshape(v.rows, v.cols), spread(scale, v.rows, v.cols), e)
        total = total + gw.double().square().sum()
    return total.sqrt().float()
