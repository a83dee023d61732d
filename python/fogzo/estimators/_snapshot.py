"""What a step leaves as it found it: gradients until complete, random states, buffers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase

Slot = tuple[dict[str, Tensor | None], str]  # a module's table of buffers, and a name in it


class Gradients:
    """The .grad of all parameters, set aside while a step makes new ones.

    During the closure every .grad is None but one, a sentinel of zeros: that is how a backward() or
    zero_grad() inside the closure is seen, and why neither can harm what was accumulated before.

    Gradients that are views may lie in the buckets of a DistributedDataParallel, into which the
    next backward() writes: of them copies are kept, and written back in the end.
    """

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters
        # None unless a step is under way: nothing to undo then
        self._old: list[tuple[nn.Parameter, Tensor]] | None = None
        self._copies: dict[int, Tensor] = {}  # by id of the view
        self._holder: nn.Parameter | None = None
        self._sentinel: Tensor | None = None
        self._version = 0

    def set_aside(self) -> None:
        self._old = old = [(p, g) for p in self._parameters if (g := p.grad) is not None]
        for p, _ in old:
            p.grad = None
        self._copies = {id(g): g.clone() for _, g in old if g._is_view()}
        holder = self._holder
        if holder is None or not holder.requires_grad or not self._place(holder):
            trainable = (p for p in self._parameters if p.requires_grad)
            holder = min(trainable, key=Tensor.numel, default=None)
            if holder is not None:
                holder.grad = self._sentinel = torch.zeros_like(holder)
            self._holder = holder
        if self._sentinel is not None:
            self._version = self._sentinel._version  # a copy's differs from its original's

    def _place(self, holder: nn.Parameter) -> bool:
        """Whether the sentinel fits: the smallest trainable parameter may have moved or changed."""
        try:
            holder.grad = self._sentinel
        except RuntimeError:
            return False
        return True

    def misuse(self) -> str | None:
        """Which of the two forbidden calls the closure made; ends the watch."""
        holder, sentinel = self._holder, self._sentinel
        for p in self._parameters:
            if p.grad is not None and p is not holder:
                return "backward()"
        if holder is None or sentinel is None:
            return None
        now, holder.grad = holder.grad, None
        if now is sentinel:
            return None if sentinel._version == self._version else "zero_grad()"
        if now is None:
            return "zero_grad()"
        # a DistributedDataParallel that lays out its buckets anew puts the zeros into one of them
        return "backward()" if now.any() else None

    def seal(self) -> None:
        """Remember the new gradients, which no probe may change."""
        self._sealed = [
            (p, g, None if g is None else g._version) for p in self._parameters for g in (p.grad,)
        ]

    def sealed(self) -> bool:
        """Whether they are as seal() saw them, which lets go of them then."""
        kept, self._sealed = self._sealed, []
        return all(p.grad is g and (g is None or g._version == version) for p, g, version in kept)

    def undo(self) -> None:
        if self._old is None:
            return
        for p in self._parameters:
            p.grad = None
        for p, old in self._old:
            p.grad = written(old, self._copies.get(id(old), old))
        self._holder = self._sentinel = self._old = None
        self._copies = {}

    def commit(self) -> None:
        """Add what the step made to what was there, into the tensor that was there."""
        for p, old in self._old or ():
            new, p.grad = p.grad, None
            if new is not None and old.is_sparse:
                p.grad = new + old
                continue
            kept = self._copies.get(id(old), old)
            if new is not None:
                with torch.no_grad():
                    kept.add_(new)
            p.grad = written(old, kept)
        self._old, self._copies = None, {}


def written(old: Tensor, values: Tensor) -> Tensor:
    """``old``, with these values."""
    if values is not old:
        with torch.no_grad():
            old.copy_(values)
    return old


class RandomStates:
    """The global random states of the CPU and of each device that holds a parameter."""

    def __init__(self, parameters: Sequence[nn.Parameter]) -> None:
        self._parameters = parameters

    def keep(self, captured: bool = False) -> None:
        """Remember the present states, for rewind(); ``captured``: from here on there are none.

        While a CUDA graph is captured no generator can be read or written.
        """
        self._captured = captured
        devices = set() if captured else {p.device for p in self._parameters}
        self._modules = [(torch.get_device_module(d), d) for d in devices if d.index is not None]
        self._states = self.read()

    def read(self) -> list[Tensor]:
        if self._captured:
            return []
        states = [torch.default_generator.get_state()]
        for module, device in self._modules:
            states.append(module.get_rng_state(device))
        return states

    def write(self, states: list[Tensor]) -> None:
        if self._captured:
            return
        torch.default_generator.set_state(states[0])
        for (module, device), state in zip(self._modules, states[1:], strict=True):
            module.set_rng_state(state, device)

    def rewind(self) -> None:
        self.write(self._states)

    def drawn(self) -> list[str]:
        """The devices whose generators are not as keep() found them."""
        if self._captured:
            return []
        places = ["cpu", *(str(device) for _, device in self._modules)]
        states = zip(self.read(), self._states, places, strict=True)
        return [place for now, then, place in states if not torch.equal(now, then)]

    def are(self, states: list[Tensor]) -> bool:
        """Whether these are the present ones."""
        pairs = zip(self.read(), states, strict=True)
        return all(torch.equal(now, then) for now, then in pairs)


class Buffers:
    """The buffers that forwards of a model write, such as BatchNorm's running statistics.

    A probe runs with copies of them, as they were before the unperturbed forward: all forwards of
    a step start alike, and only the unperturbed one leaves a trace. Which ones are written is
    learned from the bits in the first call; only those are copied later. A buffer that begins to
    change later is known by its version, and so are the others of its module: BatchNorm counts its
    forwards openly, but writes its statistics without a new version.
    """

    def __init__(self, model: nn.Module) -> None:
        self._slots: list[Slot] = [
            (m._buffers, key)
            for m in model.modules()
            for key in m._buffers.keys()  # noqa: SIM118 (a ScriptModule's table iterates by number)
        ]
        norms = {id(m._buffers): m for m in model.modules() if isinstance(m, _NormBase)}
        # BatchNorm and its like, by the slots of their buffers
        self._norms = {
            i: norms[id(table)] for i, (table, _) in enumerate(self._slots) if id(table) in norms
        }
        self._always = set(self._norms)
        self._watched = set(range(len(self._slots)))
        self._learned = False

    def keep(self) -> None:
        """Remember the present state, for the probes and for undo()."""
        self._seen = [(t, None if t is None else t._version) for t in map(_get, self._slots)]
        self._copies = {
            i: tensor.clone() for i in self._watched if (tensor := self._seen[i][0]) is not None
        }

    def end_of_forward(self) -> None:
        """Learn what the unperturbed forward wrote."""
        changed = {i for i in range(len(self._slots)) if self._is_new(i)}
        if not self._learned:
            changed |= {i for i in self._copies if not self._has_old_bits(i)}
            self._watched, self._learned = self._always, True
        if not changed <= self._watched:
            tables = [self._slots[i][0] for i in changed]
            self._watched = self._watched | {
                i for i, slot in enumerate(self._slots) if any(slot[0] is t for t in tables)
            }
            for i in self._watched - self._copies.keys():
                if (tensor := _get(self._slots[i])) is not None:
                    self._copies[i] = tensor.clone()

    def scratch(self, together: bool = False) -> AbstractContextManager[None]:
        """Stand-ins for the written buffers during one probe, or several ``together``."""
        return self._stand_ins(together) if self._watched else nullcontext()

    @contextmanager
    def _stand_ins(self, together: bool) -> Iterator[None]:
        kept = [(i, _get(self._slots[i])) for i in self._watched]
        try:
            for i, _ in kept:
                table, key = self._slots[i]
                needed = i in self._copies and not (together and self._is_unread(i))
                table[key] = self._copies[i].clone() if needed else None
            yield
        finally:
            for i, tensor in kept:
                table, key = self._slots[i]
                table[key] = tensor

    def _is_unread(self, i: int) -> bool:
        """Whether a norm in train mode only writes it: one tensor cannot take what all sides do."""
        norm = self._norms.get(i)
        running = ("running_mean", "running_var")
        return norm is not None and norm.training and self._slots[i][1] in running

    def undo(self, captured: bool = False) -> None:
        """Back to what keep() saw; no value changes while a CUDA graph is ``captured``."""
        for i, (tensor, _) in enumerate(self._seen):
            table, key = self._slots[i]
            if _get(self._slots[i]) is not tensor:
                table[key] = tensor
            if captured or tensor is None or i not in self._copies:
                continue
            if not self._has_old_bits(i):
                with torch.no_grad():
                    tensor.copy_(self._copies[i])

    def _is_new(self, i: int) -> bool:
        tensor, version = self._seen[i]
        now = _get(self._slots[i])
        return now is not tensor or (now is not None and now._version != version)

    def _has_old_bits(self, i: int) -> bool:
        now = _get(self._slots[i])
        return now is not None and torch.equal(now, self._copies[i])


def _get(slot: Slot) -> Tensor | None:
    table, key = slot
    return table[key] if key in table else None  # noqa: SIM401 (a ScriptModule's has no get)
