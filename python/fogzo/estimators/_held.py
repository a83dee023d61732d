"""Whether a model still holds the parameters that its estimator was made for."""

from __future__ import annotations

from operator import is_
from typing import Any

from torch import nn

from fogzo_kernels import _check

from ..layers.layout import Layout

EXPECTED = (
    "the same parameters in the same layers: make the estimator, and the optimizer, anew after "
    "load_state_dict(assign=True), a new weight or a new layer"
)
Places = dict[tuple[nn.Module, str], tuple[str, nn.Parameter | None]]  # paths and parameters


class Held:
    """Looks at the tables of all modules at every call: what an estimator keeps is of them."""

    def __init__(self, model: nn.Module) -> None:
        self._model = model
        self._note()

    def _note(self) -> None:
        modules = list(self._model.modules())
        self._tables = [table for m in modules for table in (m._parameters, m._modules)]
        self._entries = self._present()
        self._places: Places | None = places_of(self._model)

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, which notes the copied model when it is asked: now it may be half made."""
        return {"_model": self._model, "_tables": [], "_entries": [None], "_places": None}

    def _present(self) -> list[Any]:
        return [entry for table in self._tables for entry in table.values()]

    def changed(self, call: str) -> bool:
        """Whether modules without parameters came or went; other parameters are refused."""
        now = self._present()
        if len(now) == len(self._entries) and all(map(is_, now, self._entries)):
            return False
        then = self._places
        if then is not None:
            there = places_of(self._model)
            for place, (path, _) in (then | there).items():
                if place not in then or place not in there or then[place][1] is not there[place][1]:
                    got = f"does not hold {path!r} as when the estimator was made"
                    _check.fail(call, "model", got, EXPECTED, RuntimeError)
        self._note()
        return then is not None


def places_of(model: nn.Module) -> Places:
    layout = Layout(model)
    names = [h for holders in layout.holders.values() for h in holders]
    return {(h.module, h.key): (h.path, h.module._parameters[h.key]) for h in names}
