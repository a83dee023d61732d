"""The forwards of the probes of one step: one after the other, or all as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from ._mapping import Mapping
from ._sides import Sides, read_as_values
from ._targets import InPlace, Target
from .record import Guided


@dataclass
class Run:
    """Measures the losses of perturbed weights.

    Attributes:
        targets: weights that something stands for in a probe: the guided ones, then others.
        still: what stands for those others, in every probe.
        loss: of targets, what stands for them, and whether torch.vmap maps the call.
        flips: as Sides has them. read: names of the weights that layers took as float values.
        refused: why the last ``together`` came to nothing.
    """

    guided: Guided
    targets: Sequence[Target]
    still: Sequence[InPlace]
    loss: Callable[..., Tensor]
    difference: str
    probes: int
    flips: Any = ()
    read: set[str] = field(default_factory=set)
    refused: str | None = None

    def in_turn(self) -> list[Tensor]:
        """The loss of each side of each probe, 0-dim."""
        made = Sides(self.guided, self.difference, self.probes, together=False)
        self.flips = made.flips
        losses: list[Tensor] = []
        for probe in range(self.probes):
            for side in made.of(probe):
                losses.append(self.loss(self.targets, (*side, *self.still)))
                self.read |= read_as_values(self.guided.targets, side)
        return losses

    def together(self) -> list[Tensor] | None:
        """The same by one forward, which torch.vmap maps over the sides; None where it cannot.

        A closure's own RuntimeError comes again from ``in_turn``: it is not lost here.
        """
        made = Sides(self.guided, self.difference, self.probes, together=True)
        sides, places = made.all()

        def of_one(*entries: Tensor) -> Tensor:
            side = [place(entry) for place, entry in zip(places, entries, strict=True)]
            loss = self.loss(self.targets, (*side, *self.still), together=True)
            self.read |= read_as_values(self.guided.targets, side)
            return loss

        try:
            with Mapping(sides[0].device.type):
                # the random numbers of one forward, for every entry
                losses = torch.vmap(of_one, randomness="same")(*sides)
        except RuntimeError as error:
            self.refused = " ".join(str(error).split())[:300] or type(error).__name__
            self.read.clear()
            return None
        self.flips = made.flips
        return list(losses.unbind())
