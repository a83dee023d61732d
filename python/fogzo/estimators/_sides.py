"""The weights of a probe's sides, each in the form that its layers multiply by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from ._targets import InPlace, QuantTarget, Target
from .record import Guided

SIDES = {"central": "both", "forward": "plus"}


class Sides:
    """Makes the perturbed weights of the probes, one probe after the other or all at once.

    Args:
        guided: what is perturbed, and how.
        difference: "central" (both sides) or "forward" (plus alone).
        probes: how many there will be.
        together: whether they are made all at once.

    A quantized weight is made as packed codes, whatever multiplies them: values of all weights
    together would be a second copy of the model. Float inputs meet ``probe_matmul`` where it has a
    kernel and both sides are perturbed. It sums in another order than the unperturbed forward, so
    a difference to that multiplies by values, which each layer makes of its codes and lets go.

    Attributes:
        flips: for each form of weights, the targets that have it, and int64 [times made, targets,
            sides made at a time], written then: how many of their codes differ from those of W.
    """

    def __init__(self, guided: Guided, difference: str, probes: int, together: bool) -> None:
        self._guided, self._which = guided, SIDES[difference]
        self._probes = probes if together else 1  # of those made at a time
        targets = guided.targets
        self._weights = [target.latent() for target in targets]
        device = self._weights[0].device
        sides = 2 if self._which == "both" else 1
        self._as_values = sides == 1 or not fk.has_kernel("probe_matmul", device.type)
        by_form: dict[str, list[int]] = {}
        for i, target in enumerate(targets):
            by_form.setdefault("values" if target.grid is None else "packed", []).append(i)
        self._parts = list(by_form.items())
        times, count = probes // self._probes, self._probes * sides
        self.flips = [
            (
                [targets[i] for i in chosen],
                torch.empty(times, len(chosen), count, dtype=torch.int64, device=device),
            )
            for _, chosen in self._parts
        ]

    def of(self, probe: int) -> Iterator[Sequence[InPlace]]:
        """For each side of the probe, what stands for the weights of ``guided.targets``."""
        columns: list[Sequence[InPlace]] = []
        for i, result in enumerate(self._make(probe)):
            tensor, place = self._placed(i, result)
            columns.append([place(side) for side in tensor.unbind()])
        return zip(*columns, strict=True)

    def all(self) -> tuple[list[Tensor], list[Any]]:
        """All sides of all probes, for each of ``guided.targets``.

        Returns:
            Tensors [sides, ...], and functions that make what stands for a weight of an entry.
        """
        made = [self._placed(i, result) for i, result in enumerate(self._make(0))]
        return [tensor for tensor, _ in made], [place for _, place in made]

    def _make(self, probe: int) -> list[Any]:
        """Of each target the sides [sides, ...] of ``probe``, or of all where made together."""
        guided = self._guided
        made: list[Any] = [None] * len(self._weights)
        for (form, chosen), (_, flips) in zip(self._parts, self.flips, strict=True):

            def of(column: Sequence[Any], chosen: list[int] = chosen) -> Sequence[Any]:
                return column if len(chosen) == len(column) else [column[i] for i in chosen]

            results = fk.perturb_quantize_many(
                of(self._weights),
                of(guided.guides),
                of(guided.scales),
                of(guided.grids),
                of(guided.surrogates),
                sides=self._which,
                probes=self._probes,
                first_probe=probe,
                form=form,
                flip_counts=flips[probe],
                **guided.draw | {"tensors": of(guided.draw["tensors"])},
            )
            for i, result in zip(chosen, results, strict=True):
                made[i] = result
        return made

    def _placed(self, i: int, result: Tensor | fk.Packed) -> tuple[Tensor, Any]:
        """A tensor of sides, and what makes of one of them that which stands for the weight."""
        if isinstance(result, Tensor):
            return result, lambda side: side
        target, scale = self._guided.targets[i], self._guided.scales[i]
        bits, shape = result.bits, result.shape[1:]
        assert isinstance(target, QuantTarget)

        def place(side: Tensor) -> InPlace:
            codes = fk.Packed(side, bits, shape)
            return target.coded(codes, scale, as_values=self._as_values)

        return result.data, place


def read_as_values(targets: Sequence[Target], side: Sequence[InPlace]) -> set[str]:
    """Names of the weights that a forward took as float32 values in spite of their codes."""
    return {
        target.name
        for target, given in zip(targets, side, strict=True)
        if not isinstance(given, Tensor) and given.read_as_values
    }
