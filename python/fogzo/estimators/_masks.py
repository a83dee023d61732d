"""Random numbers that torch.vmap lays out as a forward without it does."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

DROPOUT = frozenset({"dropout", "dropout_"})
# these, and those that fill a tensor in the order in which it lies in memory
DRAWS = DROPOUT | frozenset(
    {
        "bernoulli_", "cauchy_", "exponential_", "geometric_", "log_normal_", "normal_", "random_",
        "uniform_",
    }
)


def drawn(func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
    """``func(*args, **kwargs)`` with the random numbers that one entry's own call would draw.

    torch.vmap fills row by row; a forward without it fills as the tensor lies in memory, which is
    another order after a transposition. So what is filled is a tensor of rows as they lie there.
    """
    if name not in DRAWS or not isinstance(args[0], Tensor) or args[0].is_contiguous():
        return func(*args, **kwargs)
    x, *others = args
    strides = x.stride()
    order = sorted(range(x.dim()), key=lambda d: -strides[d])
    back = [order.index(d) for d in range(x.dim())]
    sizes = [x.shape[d] for d in order]
    rows = torch.ones(sizes, dtype=x.dtype, device=x.device)
    if name in DROPOUT:
        noise = torch.dropout(rows, *others, **kwargs).permute(back)
        return x.mul_(noise) if name == "dropout_" else x * noise
    return x.copy_(func(rows, *others, **kwargs).permute(back))
