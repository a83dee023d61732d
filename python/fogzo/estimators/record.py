"""What the last step of an estimator did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

_NONE = torch.empty(0, dtype=torch.float64)
_NO_PAIR = torch.empty(0, 2, dtype=torch.float64)


@dataclass(slots=True)
class Last:
    """The figures of one ``backward`` call; tensors stay on their device, nothing is synchronised.

    Attributes:
        loss: unperturbed loss, 0-dim. losses: float64 [n, 2], L+ and L- of each probe.
        difference: float64 [n], D = (L+ - L-) / 2. predicted: float64 [n], P = v . g'.
        norm: N, 0-dim float32; NaN without a guide. gamma: as used. forwards: this call's cost, a
            forward 1, a backward 2.
        fallbacks: steps so far in which a probe's loss was not finite and G became g.

    A plain straight-through step has n = 0.
    """

    loss: Tensor
    gamma: float = 0.0
    norm: Tensor | float = float("nan")
    losses: Tensor = _NO_PAIR
    difference: Tensor = _NONE
    predicted: Tensor = _NONE
    forwards: int = 3
    fallbacks: Tensor | int = 0
    names: Sequence[str] = ()
    flip_counts: Tensor | None = None

    @property
    def ratio(self) -> Tensor:
        """float64 [n], difference / predicted; NaN where predicted is 0."""
        nan = torch.full_like(self.predicted, float("nan"))
        return torch.where(self.predicted == 0, nan, self.difference / self.predicted)

    @property
    def flips(self) -> dict[str, int]:
        """Codes that differ from the unperturbed ones, over all sides, by weight; synchronises."""
        if self.flip_counts is None:
            return {}
        counts = self.flip_counts.sum(dim=(0, 2)).tolist()
        return dict(zip(self.names, counts, strict=True))
