"""Reference of quantize_activation: the specification, in plain torch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import pad


def quantize_activation(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    x = x.float()
    if bits == 1:
        signs = torch.where(x >= 0, 1, -1).masked_fill(x.isnan(), 0)
        return signs.to(torch.int8), (x.abs().double().sum(-1) / max(x.shape[-1], 1)).float()
    q = torch.tensor(2 ** (bits - 1) - 1, dtype=torch.float32, device=x.device)
    # The padding gives an empty row a largest magnitude.
    x_scale = pad(x.abs(), (0, 1)).amax(-1) / q
    codes = (x / x_scale[..., None]).round().clamp(-q, q)
    return codes.nan_to_num(nan=0.0).to(torch.int8), x_scale
