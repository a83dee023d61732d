"""Warns where the losses of probes differ by no more than their own rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from .._warn import warn
from ._base import readable
from .record import Last, eps_of

ENOUGH = 10.0  # roundings of the loss, eps |L|, that a difference should be
STEPS = 100


class ResolutionWatch:
    """Warns once, when no probe of STEPS steps in a row had a resolution of ENOUGH.

    Losses that the host cannot read (``on_host`` False: no losses at all) are counted on their
    device; ``warn`` reads the count where the host waits for figures anyway. Plain steps neither
    count nor end a run of steps.
    """

    def __init__(self, op: str, on_host: bool = True) -> None:
        self._op, self._on_host = op, on_host
        self._warned = False
        self._run, self._largest = 0, 0.0
        self._dtype = torch.float32
        self._state: Tensor | None = None  # float64 [3] on the device: run, largest, and found

    def see(self, last: Last) -> None:
        """Count one step's probes."""
        losses = last._losses
        if self._warned or not losses:
            return
        self._dtype = last.loss.dtype
        last._when_read = self.warn
        if self._on_host and all(readable(loss) for loss in losses):
            self._see_on_host([loss.item() for loss in losses], eps_of(self._dtype))
            return
        if self._state is None:
            self._state = last.losses.new_tensor([0.0, 0.0, math.nan])
        run, largest_so_far, found = self._state.unbind()
        now = last.resolution.amax()
        low_now = now < ENOUGH
        run = torch.where(low_now, run + 1, 0)
        largest_so_far = torch.where(low_now, torch.maximum(largest_so_far, now), 0)
        found = torch.where(found.isnan() & (run >= STEPS), largest_so_far, found)
        state = torch.stack([run, largest_so_far, found])
        if last._used is not None:
            state = torch.where(last._used, state, self._state)
        self._state.copy_(state)

    def _see_on_host(self, losses: list[float], eps: float) -> None:
        """The same by plain numbers, which take less time than torch's operations."""
        largest = 0.0
        for a, b in zip(losses[::2], losses[1::2], strict=True):
            unit = eps * max(abs(a), abs(b))
            # losses that are 0 or not finite are not low
            largest = max(largest, abs(a - b) / unit if math.isfinite(a - b) and unit else math.inf)
        if largest >= ENOUGH:
            self._run, self._largest = 0, 0.0
            return
        self._run, self._largest = self._run + 1, max(self._largest, largest)
        if self._run >= STEPS:
            self._say(self._largest)

    def warn(self) -> None:
        """Read what a device counted, and say it."""
        if self._state is not None and not self._warned:
            found = self._state[2].item()
            if not math.isnan(found):
                self._say(found)

    def _say(self, largest: float) -> None:
        self._warned = True
        warn(
            f"{self._op}: in {STEPS} steps in a row no probe's two losses differed by more than "
            f"{largest:.3g} roundings of {name_of(self._dtype)}, expected {ENOUGH:g} or more: "
            f"{advice(self._dtype, largest)}"
        )


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def advice(dtype: torch.dtype, resolution: float) -> str:
    """What to change where a difference of losses of that dtype has too low a resolution."""
    if dtype in (torch.bfloat16, torch.float16):
        return f"{name_of(dtype)} loss cannot resolve the probe: compute the loss in float32"
    if resolution == 0:
        return "the probes change nothing that the loss sees: a larger gamma or more probes"
    return f"{name_of(dtype)} loss hardly resolves the probe: a larger gamma, or a float64 loss"
