"""Whether a closure gives the same loss again, and where its forwards first differ."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from fogzo_kernels import _check

from ._snapshot import Buffers, RandomStates

CHUNK = 2**20  # elements digested at a time
EXPECTED = (
    "the same loss bit for bit: take the batch outside of it, and draw what is random with "
    "torch's global generators"
)


class Repeat:
    """Runs a forward again as a first one began: with its random states and buffers."""

    def __init__(self, model: nn.Module, parameters: Sequence[nn.Parameter]) -> None:
        self._model = model
        self._random, self._buffers = RandomStates(parameters), Buffers(model)

    def keep(self) -> None:
        """Remember how the first forward begins."""
        self._random.keep()
        self._buffers.keep()

    def again(self, forward: Callable[[], Tensor]) -> Tensor:
        """The loss once more; random states and buffers are left as found."""
        found = self._random.read()
        self._random.rewind()
        try:
            with self._buffers.scratch():
                return forward()
        finally:
            self._random.write(found)

    def differs(self, forward: Callable[[], Tensor], loss: Tensor) -> tuple[float, str] | None:
        """The other loss and where it first came to differ; None for equal bits."""
        other = self.again(forward).detach()
        if _digest([other]) == _digest([loss]):
            return None
        return other.item(), first_difference(self._model, lambda: self.again(forward))

    def check(self, call: str, forward: Callable[[], Tensor], loss: Tensor) -> None:
        """Refuse a forward that gives another loss than its first one's."""
        found = self.differs(forward, loss)
        if found is not None:
            other, where = found
            got = (
                f"returned {loss.item()!r} and then {other!r} for the same weights and random "
                f"state (what differs first: {where})"
            )
            _check.fail(call, "closure", got, EXPECTED, RuntimeError)


def first_difference(model: nn.Module, forward: Callable[[], Any]) -> str:
    """What differs first between two runs of ``forward``: a module's input, its output, or neither.

    A module's output comes after those of the modules inside it, so that the first output to
    differ names the innermost one that computed it.
    """
    first, second = _trace(model, forward), _trace(model, forward)
    for (where, digest), (there, other) in zip(first, second, strict=False):
        if where != there:
            return f"the modules that run ({there} in place of {where})"
        if digest != other:
            return where
    if len(first) != len(second):
        return f"the modules that run ({len(first)} and then {len(second)} inputs and outputs)"
    return "what the closure does outside of the model's modules"


def _trace(model: nn.Module, forward: Callable[[], Any]) -> list[tuple[str, list[Any]]]:
    """Digests of all modules' inputs and outputs, in the order in which they come."""
    events: list[tuple[str, list[Any]]] = []

    def watch(what: str, module: nn.Module, name: str, stack: ExitStack) -> None:
        place = f"the {what} of " + (f"{name!r} ({type(module).__name__})" if name else "the model")

        def on_input(_: nn.Module, args: Any, kwargs: Any) -> None:
            events.append((place, _digest((args, kwargs))))

        def on_output(_: nn.Module, args: Any, output: Any) -> None:
            events.append((place, _digest(output)))

        handle = (
            module.register_forward_pre_hook(on_input, with_kwargs=True)
            if what == "input"
            else module.register_forward_hook(on_output)
        )
        stack.callback(handle.remove)

    with ExitStack() as stack:
        for name, module in model.named_modules():
            watch("input", module, name, stack)
            watch("output", module, name, stack)
        forward()
    return events


def _digest(values: Any) -> list[Any]:
    """Shape and a sum over the bits of every tensor inside, each bit pattern by its place."""
    return [(tuple(t.shape), t.dtype, _sum_of_bits(t)) for t in _tensors(values)]


def _sum_of_bits(tensor: Tensor) -> int:
    flat = tensor.detach().reshape(-1)
    size = flat.element_size()
    signed = {1: torch.int8, 2: torch.int16, 4: torch.int32, 8: torch.int64, 16: torch.int64}
    bits = flat.view(signed[size])
    total = torch.zeros((), dtype=torch.int64, device=bits.device)
    for start in range(0, bits.numel(), CHUNK):
        part = bits[start : start + CHUNK].long()
        place = torch.arange(start + 1, start + 1 + part.numel(), device=bits.device)
        total += (part * place).sum()  # modulo 2^64
    return int(total)


def _tensors(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, Mapping):
        for value in values.values():
            yield from _tensors(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _tensors(value)
