"""Which parameters no optimizer holds."""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from functools import cache
from typing import Any

from torch import nn
from torch.optim.optimizer import Optimizer, register_optimizer_step_pre_hook

from fogzo_kernels import _check

from .._warn import warn
from ..layers.layout import Layout

MANY = 8  # names in a text


def check_optimizers(op: str, model: nn.Module, optimizers: Sequence[Any]) -> None:
    """Refuse optimizers that together lack a parameter of the model that requires grad."""
    if not optimizers:
        _check.fail(op, "optimizers", "is empty", "the optimizers that train the model")
    held: set[int] = set()
    for optimizer in optimizers:
        groups = getattr(optimizer, "param_groups", None)
        if groups is None:
            got = f"is a {type(optimizer).__name__}"
            _check.fail(op, "optimizers", got, "torch.optim.Optimizer", TypeError)
        held |= {id(p) for group in groups for p in group["params"]}
    lacking = [
        name for name, p in model.named_parameters() if p.requires_grad and id(p) not in held
    ]
    if lacking:
        what = "optimizer lacks" if len(optimizers) == 1 else "optimizers together lack"
        expected = (
            "every parameter that requires grad: make it after quantize_, from "
            "model.parameters(), or freeze these with requires_grad_(False)"
        )
        _check.fail(op, what, f"{listed(lacking)}", expected)


def listed(names: Sequence[str]) -> str:
    """The first names, and how many more there are."""
    more = len(names) - MANY
    return ", ".join(names[:MANY]) + (f" and {more} more" if more > 0 else "")


class OptimizerWatch:
    """Warns once where parameters of quantized layers got gradients that no optimizer uses.

    It notes what the optimizers hold that step between one call of ``backward`` and the next, and
    is done when some of the model's parameters have been among it.
    """

    def __init__(self, op: str, model: nn.Module) -> None:
        names = {id(p): name for name, p in model.named_parameters()}
        layers = {id(m): m for _, found in Layout(model).quantized() for m in found}
        own = [p for m in layers.values() for p in m._parameters.values() if p is not None]
        self._op, self._all = op, list(model.parameters())
        self._own = {names[id(p)]: p for p in own}  # tied weights once
        self._seen: set[int] = set()
        self.watching = bool(own)
        self._register()

    def _register(self) -> None:
        if self.watching:
            _watch_steps()
            _watchers.add(self)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, whose parameters are others."""
        return {**self.__dict__, "_seen": set()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._register()

    def note(self, held: set[int]) -> None:
        """An optimizer of these parameters steps."""
        self._seen |= held & {id(p) for p in self._all}

    def look(self) -> None:
        """Called as ``backward`` begins."""
        if not self.watching or not self._seen:
            return
        self.watching = False
        _watchers.discard(self)
        own = self._own.items()
        lacking = [name for name, p in own if p.requires_grad and id(p) not in self._seen]
        if lacking:
            warn(
                f"{self._op}: no optimizer that stepped holds {listed(lacking)}: make it after "
                "quantize_, from model.parameters(), or freeze these with requires_grad_(False); "
                "est.check_optimizer(optimizer) checks before training"
            )


_watchers: weakref.WeakSet[OptimizerWatch] = weakref.WeakSet()


@cache
def _watch_steps() -> None:
    register_optimizer_step_pre_hook(_note)


def _note(optimizer: Optimizer, *_: Any) -> None:
    if _watchers:
        held = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for watcher in list(_watchers):
            watcher.note(held)
