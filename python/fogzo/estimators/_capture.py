"""Which steps a CUDA graph may capture: those that each replay would take as the next one."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from fogzo_kernels import _check


def capturing() -> bool:
    """Whether the present CUDA stream is being captured into a graph."""
    return torch.cuda.is_initialized() and torch.cuda.is_current_stream_capturing()


def counter(parameters: Iterable[nn.Parameter]) -> Tensor:
    """A count of 0 that lies where the parameters do, 0-dim int64."""
    device = next((p.device for p in parameters), None)
    return torch.zeros((), dtype=torch.int64, device=device)


class Captures:
    """Refuses what a graph cannot hold, by what the eager call before found.

    A replay runs kernels and nothing else: it reads the host's numbers and random states as they
    were, and rewinds no generator between the forwards of a step.

    Attributes:
        held: whether a graph holds a call.
        drew: where that call's forward drew random numbers.
    """

    def __init__(self, call: str, model: nn.Module, parameters: Iterable[nn.Parameter]) -> None:
        self._call, self._parameters = call, list(parameters)
        self._model = model
        self.held = False
        self.drew: list[str] = []
        self._modes: list[bool] | None = None  # of the modules, in that call
        self.check_devices()

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, which no graph holds."""
        return {**self.__dict__, "held": False}

    def check_devices(self) -> None:
        places = sorted({str(p.device) for p in self._parameters})
        if len(places) > 1:
            got = f"has parameters on {' and '.join(places)}"
            _check.fail(self._call, "model", got, "one device, with capturable=True")

    def check(self, here: bool) -> None:
        """Refuse a capture; ``here``: the counters lie where the weights do."""
        if self._modes is None or not here:
            got = "is captured before an eager call" + ("" if here else " on this device")
            expected = "one first, which learns what the forward writes and draws"
            _check.fail(self._call, "step", got, expected, RuntimeError)
        if self.drew:
            got = f"drew random numbers (of {' and '.join(self.drew)})"
            expected = (
                "none in a captured step, whose probes cannot be given those of its own forward: "
                "dropout 0, or noise that is an input"
            )
            _check.fail(self._call, "closure", got, expected, RuntimeError)
        if self._modes != self._training():
            got = "is in another mode (train, eval) than in the last eager call"
            _check.fail(self._call, "model", got, "an eager call in the mode of the capture first")

    def learn(self, drew: Iterable[str] = ()) -> None:
        """Note a call: where its forward drew random numbers, where all depends on them."""
        self.drew, self._modes = list(drew), self._training()

    def forget(self) -> None:
        """The next capture needs an eager call first."""
        self._modes = None

    def _training(self) -> list[bool]:
        return [module.training for module in self._model.modules()]
