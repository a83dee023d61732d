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
        self._calls = 0  # on the host, whatever counts those of the estimator

    def known(self, circumstances: str) -> str | None:
        """Why the closure is not tried in this call; None: it is."""
        again = self._calls % AGAIN == 0
        self._calls += 1
        return None if again else self._why.get(circumstances)

    def note(self, circumstances: str, why: str | None) -> None:
        """What came of a try; None: it was mapped."""
        self._why.pop(circumstances, None)
        if why is not None:
            self._why[circumstances] = why
            if len(self._why) > MOST:
                del self._why[next(iter(self._why))]

    @property
    def any(self) -> bool:
        return bool(self._why)

    def state(self) -> dict[str, Any]:
        return {"calls": self._calls, "reasons": dict(self._why)}

    def load(self, state: dict[str, Any]) -> None:
        self._calls, self._why = state["calls"], dict(state["reasons"])


def check_state(op: str, state: Any) -> None:
    table: dict[str, Any] = state if isinstance(state, dict) else {}
    calls, reasons = table.get("calls", -1), table.get("reasons")
    texts = reasons.items() if isinstance(reasons, dict) else ((None, None),)
    good = _check.is_int(calls) and calls >= 0
    if not good or not all(isinstance(text, str) for pair in texts for text in pair):
        expected = "a count of calls and a dict of texts, as state_dict() returned them"
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
