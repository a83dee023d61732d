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
    """Makes the perturbed weights of one probe after the other, from probe 0 on.

    Args:
        guided: what is perturbed, and how.
        difference: "central" (both sides) or "forward" (plus alone).
        probes: how many there will be.

    Packed codes are made in place of values where a layer multiplies integers, and, where both
    sides are perturbed, wherever ``probe_matmul`` has a kernel. It sums in another order than the
    unperturbed forward, so a difference to that keeps to values.

    Attributes:
        flips: for each form of weights, the targets that have it, and int64 [probes, targets,
            sides], written as the probes are made: how many of their codes differ from those of W.
    """

    def __init__(self, guided: Guided, difference: str, probes: int) -> None:
        self._guided, self._which = guided, SIDES[difference]
        targets = guided.targets
        self._weights = [target.latent() for target in targets]
        device = self._weights[0].device
        sides = 2 if self._which == "both" else 1
        packed = sides == 2 and fk.has_kernel("probe_matmul", device.type)
        by_form: dict[str, list[int]] = {}
        for i, target in enumerate(targets):
            form = "packed" if packed and target.grid is not None else target.form
            by_form.setdefault(form, []).append(i)
        self._parts = list(by_form.items())
        self.flips = [
            (
                [targets[i] for i in chosen],
                torch.empty(probes, len(chosen), sides, dtype=torch.int64, device=device),
            )
            for _, chosen in self._parts
        ]

    def of(self, probe: int) -> Iterator[Sequence[InPlace]]:
        """For each side of the probe, what stands for the weights of ``guided.targets``."""
        columns: list[Sequence[InPlace]] = [()] * len(self._weights)
        for (form, chosen), (_, flips) in zip(self._parts, self.flips, strict=True):
            results = self._make(probe, form, chosen, flips[probe])
            for i, result in zip(chosen, results, strict=True):
                columns[i] = self._sides(i, result)
        return zip(*columns, strict=True)

    def _make(self, probe: int, form: str, chosen: list[int], flips: Tensor) -> list[Any]:
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
            flip_counts=flips,
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
