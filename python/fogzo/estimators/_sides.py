"""The weights of a probe's sides, each in the form that its layers multiply by."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from torch import Tensor

import fogzo_kernels as fk

from ._targets import InPlace, QuantTarget, Target, as_rows
from .record import Guided

SIDES = {"central": "both", "forward": "plus"}


class Sides:
    """Makes the perturbed weights of one probe after the other, from probe 0 on.

    Args:
        guided: what is perturbed, and how.
        difference: "central" (both sides) or "forward" (plus alone).
        flip_counts: int64 [probes, rounded weights, sides], written as the probes are made.
    """

    def __init__(self, guided: Guided, difference: str, flip_counts: Tensor) -> None:
        self._guided, self._which = guided, SIDES[difference]
        self._counts = iter(flip_counts.view(-1, flip_counts.shape[2]).unbind())
        self._weights = [as_rows(target.weight) for target in guided.targets]
        forms = [target.form for target in guided.targets]
        self._parts = [
            (form, [i for i, own in enumerate(forms) if own == form])
            for form in dict.fromkeys(forms)
        ]

    def of(self, probe: int) -> Iterator[Sequence[InPlace]]:
        """For each side of the probe, what stands for the weights of ``guided.targets``."""
        grids = self._guided.grids
        counts = [None if grid is None else next(self._counts) for grid in grids]
        columns: list[Sequence[InPlace]] = [()] * len(grids)
        for form, chosen in self._parts:
            for i, result in zip(chosen, self._make(probe, form, chosen, counts), strict=True):
                columns[i] = self._sides(i, result)
        return zip(*columns, strict=True)

    def _make(
        self, probe: int, form: str, chosen: list[int], counts: list[Tensor | None]
    ) -> list[Any]:
        guided = self._guided

        def of(column: Sequence[Any]) -> Sequence[Any]:
            return column if len(chosen) == len(column) else [column[i] for i in chosen]

        results: list[Any] = fk.perturb_quantize_many(
            of(self._weights),
            of(guided.guides),
            of(guided.scales),
            of(guided.grids),
            of(guided.surrogates),
            sides=self._which,
            first_probe=probe,
            form=form,
            flip_counts=of(counts),
            **guided.draw | {"tensors": of(guided.draw["tensors"])},
        )
        return results

    def _sides(self, i: int, result: Tensor | fk.Packed) -> Sequence[InPlace]:
        if isinstance(result, Tensor):
            return result.unbind()
        target, scale, shape = self._guided.targets[i], self._guided.scales[i], result.shape[1:]
        assert isinstance(target, QuantTarget)
        return [
            target.coded(fk.Packed(data, result.bits, shape), scale)
            for data in result.data.unbind()
        ]


def read_as_values(targets: Sequence[Target], side: Sequence[InPlace]) -> set[str]:
    """Names of the weights that a forward took as float32 values in spite of their codes."""
    return {
        target.name
        for target, given in zip(targets, side, strict=True)
        if not isinstance(given, Tensor) and given.read_as_values
    }
