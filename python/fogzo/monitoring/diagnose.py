"""Checks of a model and a closure before training: what the probes can see."""

from __future__ import annotations

import math
import random
import sys
import warnings
from collections.abc import Callable
from types import TracebackType
from typing import Any

from torch import Tensor, nn

from fogzo_kernels import _check

from ..estimators import FOGZO, Last
from ..estimators._repeat import Repeat
from ..estimators._resolution import name_of
from ..estimators._snapshot import Buffers, RandomStates
from . import verdicts
from .verdicts import Diagnosis


def diagnose(
    model: nn.Module,
    closure: Callable[..., Tensor],
    batch: Any = None,
    *,
    gamma: float | str = "auto",
    probes: int = 4,
    seed: int = 0,
    noise: str = "published",
    probes_mode: str = "sequential",
    verbose: bool = True,
) -> Diagnosis:
    """Measure what FOGZO's probes can see of a model and a closure; nothing is changed.

    It takes two forwards for the repeat, and the steps of an estimator with ``gamma`` and of one
    with gamma 0. Parameters, gradients, buffers and random states (torch's, Python's, NumPy's)
    are afterwards as before, also where the closure raises.

    Args:
        model: with quantized layers.
        closure, batch: as ``est.backward`` takes them.
        gamma, probes, seed, noise, probes_mode: as FOGZO's; with "batched" the verdicts say whether
            the closure can be mapped.
        verbose: print the result.

    Returns:
        The Diagnosis.

    Raises:
        TypeError, ValueError, RuntimeError, FloatingPointError: as FOGZO and its ``backward``.

    Example:
        >>> found = fogzo.diagnose(model, lambda: criterion(model(x), y))
    """
    untouched = _Untouched(model)
    with untouched, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the verdicts say it
        options: dict[str, Any] = {"seed": seed, "noise": noise, "allow_unused": True}
        options["probes_mode"] = probes_mode
        est = FOGZO(model, probes=probes, gamma=gamma, **options)
        if not any(target.enabled for target in est._targets):
            got = "has disabled quantized layers alone"
            _check.fail("diagnose", "model", got, "fogzo.enable_quantization(model) first")
        along = FOGZO(model, gamma=0.0, **options)
        differs = _repeated(est, model, closure, batch)
        for each in (est, along):
            untouched.restore()  # all begin alike
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
        return repeat.differs(est._repeated(forward), loss)


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
        self._buffers.keep()
        self._random.keep()
        self._python = random.getstate()
        self._numpy = sys.modules.get("numpy")
        self._of_numpy = None if self._numpy is None else self._numpy.random.get_state()
        self.restore()

    def restore(self) -> None:
        """Buffers and random states as they were, and no gradients."""
        for p in self._parameters:
            p.grad = None
        self._buffers.undo()
        self._random.rewind()
        random.setstate(self._python)
        if self._numpy is not None:
            self._numpy.random.set_state(self._of_numpy)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        self.restore()
        for p, gradient in zip(self._parameters, self._gradients, strict=True):
            p.grad = gradient


def _diagnosis(est: FOGZO, last: Last, along: Last, differs: tuple[float, str] | None) -> Diagnosis:
    d = sum(target.weight.numel() for target in last._probed[0])
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
        "resolution": verdicts.largest(last.resolution.tolist()),
        "why_sequential": last.why_sequential,
    }
    bare = Diagnosis(**values, findings=())
    other = math.nan if differs is None else differs[0]
    findings: tuple[verdicts.Finding, ...] = (
        verdicts.of_repeat(bare, other),
        verdicts.of_losses(last),
        verdicts.of_guide(bare),
        verdicts.of_flips(bare, est),
        verdicts.of_slope(bare, sum(along.flips.values())),
        verdicts.of_resolution(bare, last),
    )
    if est.probes_mode == "batched":
        findings += (verdicts.of_mapping(bare, est.probes),)
    return Diagnosis(**values, findings=findings)
