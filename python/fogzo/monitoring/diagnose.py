"""Checks of a model and a closure before training: what the probes can see."""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from fogzo_kernels import _check

from ..estimators import FOGZO, Last
from ..estimators._repeat import EXPECTED, Repeat
from ..estimators._resolution import ENOUGH, advice, name_of
from ..estimators._snapshot import Buffers, RandomStates

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


def diagnose(
    model: nn.Module,
    closure: Callable[..., Tensor],
    batch: Any = None,
    *,
    gamma: float | str = "auto",
    probes: int = 4,
    seed: int = 0,
    noise: str = "published",
    verbose: bool = True,
) -> Diagnosis:
    """Measure what FOGZO's probes can see of a model and a closure; nothing is changed.

    It takes two forwards for the repeat, and the steps of an estimator with ``gamma`` and of one
    with gamma 0. Parameters, gradients, buffers and random states (torch's, Python's, NumPy's)
    are afterwards as before, also where the closure raises.

    Args:
        model: with quantized layers.
        closure, batch: as ``est.backward`` takes them.
        gamma, probes, seed, noise: as FOGZO's.
        verbose: print the result.

    Returns:
        The Diagnosis.

    Raises:
        TypeError, ValueError, RuntimeError, FloatingPointError: as FOGZO and its ``backward``.

    Example:
        >>> found = fogzo.diagnose(model, lambda: criterion(model(x), y))
    """
    with _Untouched(model), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the verdicts say it
        options: dict[str, Any] = {"seed": seed, "noise": noise, "allow_unused": True}
        est = FOGZO(model, probes=probes, gamma=gamma, **options)
        along = FOGZO(model, gamma=0.0, **options)
        differs = _repeated(est, model, closure, batch)
        for each in (est, along):
            model.zero_grad()
            each.backward(closure, batch)
        assert est.last is not None
        assert along.last is not None
        found = _diagnosis(est, est.last, along.last, differs)
    if verbose:
        print(found)
    return found


def _repeated(est: FOGZO, model: nn.Module, closure: Any, batch: Any) -> tuple[float, str] | None:
    """The other loss and what differed, of a closure that ``backward`` has yet to check."""
    if not callable(closure):
        est.backward(closure, batch)  # says what is wrong with it

    def forward() -> Tensor:
        return closure() if batch is None else closure(batch)

    repeat = Repeat(model, est._parameters)
    with est._no_steps:
        repeat.keep()
        loss = est._forward(forward)
        return repeat.differs(forward, loss)


class _Untouched:
    """Leaves gradients, buffers and random states as they were."""

    def __init__(self, model: nn.Module) -> None:
        if not isinstance(model, nn.Module):
            got = f"is a {type(model).__name__}"
            _check.fail("diagnose", "model", got, "a torch.nn.Module", TypeError)
        self._parameters = list(model.parameters())
        self._buffers, self._random = Buffers(model), RandomStates(self._parameters)

    def __enter__(self) -> None:
        self._gradients = [p.grad for p in self._parameters]
        for p in self._parameters:
            p.grad = None
        self._buffers.keep()
        self._random.keep()
        self._python = random.getstate()
        self._numpy = sys.modules.get("numpy")
        self._of_numpy = None if self._numpy is None else self._numpy.random.get_state()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            p.grad = gradient
        self._buffers.undo()
        self._random.rewind()
        random.setstate(self._python)
        if self._numpy is not None:
            self._numpy.random.set_state(self._of_numpy)


def _diagnosis(est: FOGZO, last: Last, along: Last, differs: tuple[float, str] | None) -> Diagnosis:
    targets = [] if last._guided is None else last._guided.targets
    d = sum(target.weight.numel() for target in targets)
    guided = float(last.norm) > 0
    values: dict[str, Any] = {
        "repeatable": differs is None,
        "differs_at": None if differs is None else differs[1],
        "loss": float(last.loss),
        "dtype": name_of(last.loss.dtype),
        "weights": d,
        "gamma": est.gamma,
        "guide": math.sqrt(1 - est.gamma) if guided else 0.0,
        "noise": math.sqrt(est.gamma * d),
        "flips": last.flips,
        "measured": float(along.difference[0]) if len(along.difference) else math.nan,
        "predicted": float(along.predicted[0]) if len(along.predicted) else math.nan,
        "resolution": _largest(last.resolution.tolist()),
    }
    bare = Diagnosis(**values, findings=())
    other = math.nan if differs is None else differs[0]
    findings = (
        _of_repeat(bare, other),
        _of_losses(last),
        _of_guide(bare),
        _of_flips(bare, est),
        _of_slope(bare, sum(along.flips.values())),
        _of_resolution(bare, last),
    )
    return Diagnosis(**values, findings=findings)


def _largest(numbers: list[float]) -> float:
    return max((x for x in numbers if not math.isnan(x)), default=0.0)


def _of_repeat(found: Diagnosis, other: float) -> Finding:
    if found.repeatable:
        return Finding("repeatable", "two forwards: equal losses", "bit for bit", True)
    verdict = f"first differs {found.differs_at}; expected {EXPECTED}"
    return Finding("repeatable", f"{found.loss!r}, then {other!r}", verdict, False)


def _of_losses(last: Last) -> Finding:
    bad = int((~last.losses.isfinite()).any(1).sum())
    n = len(last.losses)
    measured = f"{n - bad} of {n} probes have finite losses"
    if bad:
        verdict = "a loss overflows close by: a smaller gamma, or a loss that is finite everywhere"
        return Finding("finite", measured, verdict, False)
    return Finding("finite", measured, "no probe falls back to the STE", True)


def _of_guide(found: Diagnosis) -> Finding:
    measured = f"|guide| {found.guide:.3g}, |noise| = sqrt(gamma d) = {found.noise:.3g}"
    if found.gamma < 1 and not found.guide > 0:
        verdict = "the straight-through gradient is 0 or not finite: nothing guides the probes"
        return Finding("guide / noise", measured, verdict, False)
    if found.noise > DROWNED * found.guide:
        auto = min(1e-3, 1 / max(found.weights, 1))
        verdict = f"the noise drowns the guide (n-SPSA): gamma 'auto' would be {auto:.3g}"
        return Finding("guide / noise", measured, verdict, False)
    return Finding("guide / noise", measured, "the guide counts", True)


def _of_flips(found: Diagnosis, est: FOGZO) -> Finding:
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


def _of_slope(found: Diagnosis, flips: int) -> Finding:
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


def _of_resolution(found: Diagnosis, last: Last) -> Finding:
    measured = f"|L+ - L-| is {found.resolution:.3g} roundings of a {found.dtype} loss"
    if not found.repeatable:
        return Finding("resolution", measured, "means nothing: see repeatable", False)
    if found.resolution < ENOUGH:
        verdict = advice(last.loss.dtype, found.resolution)
        return Finding("resolution", measured, verdict, False)
    return Finding("resolution", measured, "the loss resolves the probe", True)
