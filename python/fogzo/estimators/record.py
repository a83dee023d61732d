"""What the last step of an estimator did."""

from __future__ import annotations

import math
from array import array
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from ._targets import Target

KEPT = 2**20  # elements of guides that may outlive the call, for ``predicted`` to be made when read
PARTS = 25


class Guided:
    """The weights that one step perturbs, and where their perturbations come from.

    Attributes:
        names, weights, scales, grids, surrogates: of the perturbed weights.
        guides: float32 tensors of their shapes, which perturb_quantize takes as grad.
        draw: tensors, seed, step, gamma, norm and noise, as the operations take them.
    """

    def __init__(
        self, targets: Sequence[Target], guides: list[Tensor], draw: dict[str, Any]
    ) -> None:
        self.targets, self.guides = targets, guides
        # copies of scales that a later forward refreshes: ``predicted`` is made when it is read
        self.scales = [t.scale.clone() if t.scale_moves else t.scale for t in targets]
        self.grids = [target.grid for target in targets]
        self.surrogates = [target.surrogate for target in targets]
        self.draw = draw | {"tensors": [target.number for target in targets]}

        self._elements = sum(guide.numel() for guide in guides)

    @property
    def large(self) -> bool:
        """Whether the guides are let go as G takes their place."""
        return self._elements > KEPT

    def parts(self) -> list[slice]:
        """Runs of the weights, of a 25th of the elements at most where that is no part of one."""
        if not self.large:
            return [slice(0, len(self.guides))]
        found, begin, size = [], 0, 0
        for i, guide in enumerate(self.guides):
            if i > begin and size + guide.numel() > self._elements / PARTS:
                found.append(slice(begin, i))
                begin, size = i, 0
            size += guide.numel()
        return [*found, slice(begin, len(self.guides))]

    def gradient(
        self, differences: Tensor, part: slice, first_probe: int = 0, outs: Any = None
    ) -> list[Tensor]:
        """(1/n) sum_i D_i v_i / (e a) of each weight in a part."""
        estimate: list[Tensor] = fk.assemble_gradient_many(
            self.guides[part],
            self.scales[part],
            differences,
            self.surrogates[part],
            first_probe=first_probe,
            outs=outs,
            **self.draw | {"tensors": self.draw["tensors"][part]},
        )
        return estimate

    def predicted(self, probe: int) -> Tensor:
        """P = v . g' of one probe, 0-dim float64; v / (e a) is the gradient of the difference 1."""
        one = torch.ones(1, device=self.guides[0].device)
        total = torch.zeros((), dtype=torch.float64, device=one.device)
        for part in self.parts():
            directions = self.gradient(one, part, first_probe=probe)
            columns = (self.guides[part], self.scales[part], self.surrogates[part])
            for direction, guide, scale, surrogate in zip(directions, *columns, strict=True):
                unit = scale.double() * fk.radius(surrogate, self.draw["noise"])
                by_scale = direction.mul_(guide).view(*(scale.shape[:-1] or (1,)), -1)
                share = by_scale.sum(-1, dtype=torch.float64) * unit.view(by_scale.shape[:-1]) ** 2
                total = total + share.sum()
        return total


class Last:
    """The figures of one ``backward`` call, which ``est.last`` is; None before the first.

    They stay on their device: reading one as a number waits for it, the call itself does not.
    Losses, differences and slopes are in the unit of the closure's loss, without a scaler's
    factor; n is the number of probes, 0 for a plain step (STE, or FOGZO before ``start``).

    Attributes:
        loss: unperturbed loss of the whole batch, 0-dim, detached, in the closure's dtype.
        gamma: 1 - beta as used by this call, no unit; 1 of NSPSA, 0 of a plain step; with
            FOGZO's ``capturable`` a 0-dim float64 tensor.
        norm: N, the length of g' = e a g over all perturbed weights, in the unit of the loss,
            0-dim float32; a float NaN without a guide.
        forwards: this call's cost, a forward 1, a backward 2.
        fallbacks: how many steps so far had a probe whose loss was not finite, so that G became
            g (NSPSA: 0); an int, on a device a 0-dim int64 tensor.
        losses: float64 [n, 2], L+ and L- of each probe (difference="forward": L+ and the loss
            without perturbation), of the probes' rows and by their products.
        difference: float64 [n], D = (L+ - L-) / 2 (difference="forward": L+ less the other).
        predicted: float64 [n], P = v . g', the difference that g promises; NaN without a guide
            (NSPSA). Of up to 2^20 weights it is made when first read, until the next ``backward``
            call.
        ratio: float64 [n], difference / predicted, no unit; NaN where predicted is 0 or NaN.
        resolution: float64 [n], |L+ - L-| / (eps max(|L+|, |L-|)), eps of the loss's dtype: how
            many roundings of the loss the difference is; NaN where both losses are 0.
        flips: {name: codes that the probes changed, over all sides of all probes}; quantized
            weights alone, those that were perturbed; {} for a plain step.
        probes_mode: "batched" where one forward ran all probes of the call, else "sequential".
        why_sequential: what kept them from it, where it was asked for; else None.
        float_probes: names of the perturbed weights that met float inputs in the probes: all, but
            for layers with act_bits, or with probe_dtype="int8", where embeddings, float parameters
            and weights that the model reads through ``quantized_weight()`` remain.

    Of a call that a CUDA graph captured, every tensor is that of the last replay, and what is made
    of them when it is read (flips and predicted among them) follows; the numbers, names and texts
    of the host are the capture's: forwards, probes_mode, why_sequential, float_probes.
    """

    # a plain step's
    gamma: Tensor | float = 0.0
    norm: Tensor | float = math.nan
    probes_mode = "sequential"
    why_sequential: str | None = None
    _losses: Sequence[Tensor] = ()
    _sides = 2
    _flips: Sequence[tuple[Sequence[Target], Tensor]] = ()  # targets, their counts [:, targets, :]
    _probed: tuple[Sequence[Target], set[str]] = (), set()
    _guided: Guided | None = None
    _predicted: Tensor | None = None
    _live = False  # its tensors may be written anew: a capturable estimator's
    _used: Tensor | None = None  # whether G was wanted, where the device decides (``start``)
    _when_read: Callable[[], None] | None = None  # called where the host waits for figures anyway

    def __init__(self, loss: Tensor, fallbacks: Tensor | int = 0, forwards: int = 3) -> None:
        self.loss, self.fallbacks, self.forwards = loss, fallbacks, forwards

    def __repr__(self) -> str:
        return (
            f"Last(loss={self.loss}, gamma={self.gamma:.4g}, norm={self.norm}, "
            f"difference={self.difference.tolist()}, flips={self.flips}, "
            f"fallbacks={int(self.fallbacks)}, forwards={self.forwards})"
        )

    @property
    def losses(self) -> Tensor:
        if not self._losses:
            return torch.empty(0, 2, dtype=torch.float64)
        return torch.stack(list(self._losses)).double().view(-1, 2)

    @property
    def difference(self) -> Tensor:
        losses = self.losses
        return (losses[:, 0] - losses[:, 1]) / self._sides

    @property
    def predicted(self) -> Tensor:
        if self._predicted is None:
            n = len(self._losses) // 2
            if self._guided is None or n == 0:
                made = torch.full((n,), float("nan"), dtype=torch.float64)
            else:
                with torch.no_grad():
                    made = torch.stack([self._guided.predicted(i) for i in range(n)])
            if self._live:
                return made
            self._predicted = made
        return self._predicted

    def settle(self) -> None:
        """Make what is made from the guides, before they are overwritten."""
        self._predicted = self.predicted
        self._guided = None

    @property
    def ratio(self) -> Tensor:
        nan = torch.full_like(self.predicted, float("nan"))
        return torch.where(self.predicted == 0, nan, self.difference / self.predicted)

    @property
    def resolution(self) -> Tensor:
        losses = self.losses
        size = eps_of(self.loss.dtype) * losses.abs().amax(1)
        return (losses[:, 0] - losses[:, 1]).abs() / size

    def flip_counts(self) -> list[tuple[list[str], Tensor]]:
        """``flips`` as it lies on the devices: names, and an int64 count for each."""
        found = []
        for targets, counts in self._flips:
            if kept := [i for i, target in enumerate(targets) if target.grid is not None]:
                of_each = counts.sum(dim=(0, 2)).unbind()
                found.append(
                    ([targets[i].name for i in kept], torch.stack([of_each[i] for i in kept]))
                )
        return found

    @property
    def flips(self) -> dict[str, int]:
        self.was_read()
        parts = [zip(names, n.tolist(), strict=True) for names, n in self.flip_counts()]
        return {name: n for part in parts for name, n in part}

    @property
    def float_probes(self) -> list[str]:
        targets, read = self._probed
        return [t.name for t in targets if t.form == "values" or t.name in read]

    def was_read(self) -> None:
        """Let what a device counted be said, where the host waits for figures anyway."""
        if self._when_read is not None:
            self._when_read()

    def release(self) -> None:
        """Let go of the gradients that ``predicted`` would be made from."""
        self._guided = None


def eps_of(dtype: torch.dtype) -> float:
    """eps of a loss of that dtype; an integer loss is exact up to float64."""
    return torch.finfo(dtype if dtype.is_floating_point else torch.float64).eps


class Differences:
    """Makes D of n probes, float32 [n], each rounded once from float64.

    Args:
        sides: how many perturbations lie between the two losses of a probe, 2 or 1.
        on_host: whether the host may read losses.
    """

    def __init__(self, n: int, sides: int, on_host: bool = True) -> None:
        self._sides, self._on_host = sides, on_host
        # a tensor over host memory that plain floats are written into: no operation of torch's
        self._halves = array("f", bytes(4 * n))
        self._tensor = torch.frombuffer(self._halves, dtype=torch.float32)

    def __reduce__(self) -> tuple[Any, ...]:
        # a copy shares memory with its own tensor
        return Differences, (len(self._halves), self._sides, self._on_host)

    def of(self, losses: Sequence[Tensor]) -> tuple[Tensor, bool | None]:
        """D of the losses L+, L- (or the base) of each probe in turn, 0-dim, until the next call.

        Returns:
            D, and whether all of it is finite (None where that is not readable without waiting).
        """
        if not (self._on_host and all(loss.is_cpu for loss in losses)):
            pairs = torch.stack(list(losses)).double().view(-1, 2)
            return ((pairs[:, 0] - pairs[:, 1]) / self._sides).float(), None
        numbers = [loss.item() for loss in losses]
        finite = True
        for i, (a, b) in enumerate(zip(numbers[::2], numbers[1::2], strict=True)):
            self._halves[i] = (a - b) / self._sides
            finite = finite and math.isfinite(self._halves[i])
        return self._tensor, finite
