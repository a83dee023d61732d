"""Refuses an optimizer's step() inside a closure, before it changes a parameter."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import Tensor
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from fogzo_kernels import _check

FORWARD_ONLY = "a closure of the forward pass and the loss alone; the estimator does the rest"


class _Running(threading.local):
    """The estimator's call that this thread is in, and the parameters no optimizer may step."""

    call: str | None = None
    parameters: Sequence[Tensor] = ()


_running = _Running()


class NoSteps:
    """While a ``with`` runs, step() of an optimizer of one of ``parameters`` raises RuntimeError.

    Optimizers of other tensors, and other threads, may step.
    """

    def __init__(self, call: str, parameters: Sequence[Tensor]) -> None:
        _watch_optimizers()
        self._now = call, parameters

    def __enter__(self) -> None:
        self._outer = _running.call, _running.parameters
        _running.call, _running.parameters = self._now

    def __exit__(self, *_: object) -> None:
        _running.call, _running.parameters = self._outer


@cache
def _watch_optimizers() -> None:
    """Once a process: adding and removing a hook in every step would not be safe with threads."""
    register_optimizer_step_pre_hook(_refuse)


def _refuse(optimizer: Optimizer, *_: Any) -> None:
    if _running.call is None:
        return
    own = {id(p) for p in _running.parameters}
    if any(id(p) in own for group in optimizer.param_groups for p in group["params"]):
        got = f"called step() of {type(optimizer).__name__}"
        _check.fail(_running.call, "closure", got, FORWARD_ONLY, RuntimeError)
