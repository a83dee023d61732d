"""Which closures torch.vmap could not map, and when it is asked again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from fogzo_kernels import _check

AGAIN = 100  # a closure that was refused is tried again at every so many calls of the estimator
MOST = 16  # reasons kept


class Turns:
    """Reasons for probes one after the other, by the circumstances in which they came up.

    Those are the closure's code, train or eval mode, and autocast around the call: in others a
    closure is tried at once. Where they stay the same it is tried at every hundredth call, so that
    a cause that cannot be seen from here (a last batch, a switch in the model) passes too, and one
    that stays costs little.
    """

    def __init__(self) -> None:
        self._why: dict[str, str] = {}
        self._skipped: dict[str, int] = {}  # calls since the last try
        self._trying: str | None = None

    def known(self, circumstances: str, captured: bool = False) -> str | None:
        """Why the closure is not tried in this call; None: it is.

        ``captured``: a try that fails would end the capture of a CUDA graph.
        """
        why = self._why.get(circumstances)
        if why is not None:
            self._skipped[circumstances] += 1
            if captured or self._skipped[circumstances] < AGAIN:
                self._trying = None
                return why
        self._trying = circumstances
        return None

    def note(self, why: str | None) -> None:
        """What came of the try, if there was one; None: the closure was mapped."""
        if self._trying is None:
            return
        self._why.pop(self._trying, None)
        self._skipped.pop(self._trying, None)
        if why is not None:
            self._why[self._trying], self._skipped[self._trying] = why, 0
            if len(self._why) > MOST:
                oldest = next(iter(self._why))
                del self._why[oldest], self._skipped[oldest]

    @property
    def any(self) -> bool:
        return bool(self._why)

    def state(self) -> dict[str, list[Any]]:
        return {name: [why, self._skipped[name]] for name, why in self._why.items()}

    def load(self, state: dict[str, list[Any]]) -> None:
        self._why = {name: why for name, (why, _) in state.items()}
        self._skipped = {name: skipped for name, (_, skipped) in state.items()}


def check_state(op: str, state: Any) -> None:
    pairs: Any = state.items() if isinstance(state, dict) else ((None, None),)
    for name, kept in pairs:
        good = isinstance(name, str) and isinstance(kept, list) and len(kept) == 2
        if not good or not isinstance(kept[0], str) or not _check.is_int(kept[1]) or kept[1] < 0:
            expected = "texts and counts by name, as state_dict() returned them"
            _check.fail(op, "why_sequential", f"is {state!r}", expected, TypeError)


def circumstances_of(closure: Callable[..., Any], training: bool, device: str) -> str:
    """As a text, the same in another process that runs the same code."""
    while isinstance(closure, partial):
        closure = closure.func
    function = getattr(closure, "__func__", closure)
    code = getattr(function, "__code__", None)
    owner = type(closure) if code is None else function
    line = "" if code is None else f":{code.co_firstlineno}"
    autocast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else None
    mode = "train" if training else "eval"
    return f"{owner.__module__}.{owner.__qualname__}{line}, {mode}, autocast {autocast}"
