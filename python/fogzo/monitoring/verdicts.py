"""What a diagnosis holds, and what its figures mean."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..estimators import FOGZO, Last
from ..estimators._repeat import EXPECTED
from ..estimators._resolution import ENOUGH, advice

DROWNED = 10.0  # noise over guide, from which on the guide counts for little


@dataclass(frozen=True)
class Finding:
    """One check: what was measured, what it means, and whether it is as it should be."""

    name: str
    measured: str
    verdict: str
    good: bool


@dataclass(frozen=True)
class Diagnosis:
    """What ``diagnose`` found; print it for a table.

    Attributes:
        repeatable: two forwards with one random state gave the same bits of loss.
        differs_at: what differed first where they did not, else None.
        loss: unperturbed. dtype: of the loss, as torch names it.
        weights: d, quantized weights that got a gradient. gamma: as the probes used it.
        guide: |sqrt(1 - gamma) s g'/N|; 0 where N is 0. noise: |sqrt(gamma) u| = sqrt(gamma d).
        flips: {name: codes that the probes changed, over all sides}.
        measured, predicted: D and P of a probe with gamma = 0, along the guide alone.
        resolution: the largest of the probes' |L+ - L-| / (eps max(|L+|, |L-|)).
        why_sequential: what kept probes_mode="batched" from one forward; None: nothing, or unasked.
        findings: the checks with their verdicts.
    """

    repeatable: bool
    differs_at: str | None
    loss: float
    dtype: str
    weights: int
    gamma: float
    guide: float
    noise: float
    flips: dict[str, int]
    measured: float
    predicted: float
    resolution: float
    why_sequential: str | None
    findings: tuple[Finding, ...]

    @property
    def good(self) -> bool:
        """Whether every check came out as it should."""
        return all(finding.good for finding in self.findings)

    @property
    def ratio(self) -> float:
        """measured / predicted; NaN where that is 0."""
        return self.measured / self.predicted if self.predicted else math.nan

    def __str__(self) -> str:
        width = max(len(finding.name) for finding in self.findings)
        lines = [
            f"loss {self.loss:.6g} ({self.dtype}), {self.weights:,} quantized weights, "
            f"gamma {self.gamma:.3g}"
        ]
        for f in self.findings:
            lines.append(f"{'ok   ' if f.good else 'CHECK'}  {f.name.ljust(width)}  {f.measured}")
            lines.append(f"{' ' * (width + 9)}{f.verdict}")
        return "\n".join(lines)


def largest(numbers: list[float]) -> float:
    return max((x for x in numbers if not math.isnan(x)), default=0.0)


def of_repeat(found: Diagnosis, other: float) -> Finding:
    if found.repeatable:
        return Finding("repeatable", "two forwards: equal losses", "bit for bit", True)
    verdict = f"first differs {found.differs_at}; expected {EXPECTED}"
    return Finding("repeatable", f"{found.loss!r}, then {other!r}", verdict, False)


def of_losses(last: Last) -> Finding:
    bad = int((~last.losses.isfinite()).any(1).sum())
    n = len(last.losses)
    measured = f"{n - bad} of {n} probes have finite losses"
    if bad:
        verdict = "a loss overflows close by: a smaller gamma, or a loss that is finite everywhere"
        return Finding("finite", measured, verdict, False)
    return Finding("finite", measured, "no probe falls back to the STE", True)


def of_guide(found: Diagnosis) -> Finding:
    measured = f"|guide| {found.guide:.3g}, |noise| = sqrt(gamma d) = {found.noise:.3g}"
    if found.gamma < 1 and not found.guide > 0:
        verdict = "the straight-through gradient is 0 or not finite: nothing guides the probes"
        return Finding("guide / noise", measured, verdict, False)
    if found.noise > DROWNED * found.guide:
        auto = min(1e-3, 1 / max(found.weights, 1))
        verdict = f"the noise drowns the guide (n-SPSA): gamma 'auto' would be {auto:.3g}"
        return Finding("guide / noise", measured, verdict, False)
    return Finding("guide / noise", measured, "the guide counts", True)


def of_flips(found: Diagnosis, est: FOGZO) -> Finding:
    total, sides = sum(found.flips.values()), 2 * est.probes
    each = ", ".join(f"{name} {n:,}" for name, n in found.flips.items())
    measured = f"{total:,} codes in {sides} perturbed forwards ({each or 'no weight'})"
    if total <= 1:
        verdict = "no code to measure by: a larger gamma, or more probes"
        return Finding("flips", measured, verdict, False)
    still = [name for name, n in found.flips.items() if n == 0]
    if still:
        return Finding("flips", measured, f"no code changes in {', '.join(still)}", True)
    return Finding("flips", measured, "every layer is probed", True)


def of_slope(found: Diagnosis, flips: int) -> Finding:
    name = "slope at gamma 0"
    measured = (
        f"measured {found.measured:.3g}, predicted {found.predicted:.3g}, ratio {found.ratio:.3g}"
    )
    if not found.repeatable:
        return Finding(name, measured, "means nothing: the closure is not repeatable", False)
    if math.isnan(found.ratio):
        return Finding(name, measured, "there is no guide to measure along", False)
    if flips == 0:
        verdict = "no code changes along the guide alone: nothing was measured"
        return Finding(name, measured, verdict, True)
    if found.ratio < 0:
        verdict = "the straight-through gradient points uphill here"
        return Finding(name, measured, verdict, False)
    if found.ratio < 0.5:
        verdict = "the loss changes far less than the straight-through gradient promises"
        return Finding(name, measured, verdict, True)
    if found.ratio > 2:
        verdict = "the loss changes far more than the straight-through gradient promises"
        return Finding(name, measured, verdict, True)
    return Finding(name, measured, "the straight-through gradient holds along itself", True)


def of_mapping(found: Diagnosis, probes: int) -> Finding:
    if found.why_sequential is None:
        return Finding("batched", f"one forward for {2 * probes} sides", "it can be mapped", True)
    measured = f"{2 * probes} forwards, one after the other"
    verdict = f"right, but the closure cannot be mapped: {found.why_sequential}"
    return Finding("batched", measured, verdict, False)


def of_resolution(found: Diagnosis, last: Last) -> Finding:
    measured = f"|L+ - L-| is {found.resolution:.3g} roundings of a {found.dtype} loss"
    if not found.repeatable:
        return Finding("resolution", measured, "means nothing: see repeatable", False)
    if found.resolution < ENOUGH:
        verdict = advice(last.loss.dtype, found.resolution)
        return Finding("resolution", measured, verdict, False)
    return Finding("resolution", measured, "the loss resolves the probe", True)
