"""One step of any estimator: the unperturbed forward and backward, and nothing left half done."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from fogzo_kernels import _check

from ..layers.layout import check_model
from . import _capture
from ._held import Held
from ._optimizers import OptimizerWatch, check_optimizers
from ._ranks import refuse_flat
from ._repeat import Repeat
from ._snapshot import Gradients
from ._steps import FORWARD_ONLY, NoSteps
from ._targets import QuantTarget, find_targets
from .record import Last

Closure = Callable[..., Tensor]
Forward = Callable[[], Tensor]
MAX_CALLS = 2**32
MAX_NUMBER = 2**32 - 2  # of a tensor, in the noise's counter
LOSS, NORM = 1, 2  # bits of the status word
FAILURES = {LOSS: "the loss", NORM: "the norm of the gradient"}


class Estimator(ABC):
    """What STE, NSPSA and FOGZO share; see them.

    Attributes:
        last: figures of the last call (see Last), None before the first. calls: how many there
            were. forwards: their cost so far, a forward 1, a backward 2. With ``capturable`` both
            are 0-dim int64 tensors that a replay of a captured call advances.
    """

    last: Last | None
    calls: Tensor | int
    forwards: Tensor | int
    _counters: ClassVar = {
        "calls": MAX_CALLS,
        "forwards": 2**63 - 1,
    }  # in the state: their largest values

    def __init__(
        self,
        model: nn.Module,
        *,
        accumulate: int = 1,
        allow_unused: bool = False,
        everything: bool = False,
        noise: str = "published",
        probe_act_bits: int | None = None,
        check: bool = False,
        capturable: bool = False,
    ) -> None:
        self._op = type(self).__name__
        self._call = f"{self._op}.backward"
        check_model(self._op, model)
        flags = {"allow_unused": allow_unused, "everything": everything, "check": check}
        for name, flag in (flags | {"capturable": capturable}).items():
            if not isinstance(flag, bool):  # "False" would count as True
                _check.fail(self._op, name, f"is {flag!r}", "True or False", TypeError)
        refuse_flat(self._op, model)
        self.accumulate = self._count("accumulate", accumulate)
        self.allow_unused = allow_unused
        self.last = None
        self.calls = self.forwards = 0
        self._status: Tensor | int = 0  # the failures so far; on the device of what failed
        self._targets = find_targets(self._op, model, everything, noise, probe_act_bits)
        self._parameters = list(model.parameters())
        self._gradients = Gradients(self._parameters)
        self._no_steps = NoSteps(self._call, self._parameters)
        self._unused_checked = False
        self._model, self._repeat_checked = model, not check
        self._held = Held(model)
        self._optimizers = OptimizerWatch(self._op, model)
        self.capturable, self._captured = capturable, False
        self._captures: _capture.Captures | None = None
        if capturable:
            self._captures = _capture.Captures(self._op, model, self._parameters)
            for name in (*self._counters, "_status"):
                setattr(self, name, _capture.counter(self._parameters))

    def backward(self, closure: Closure, batch: Any = None, scaler: Any = None) -> Tensor:
        """Add this call's gradient estimate to the parameters' .grad.

        Args:
            closure: runs the forward pass and returns the mean loss, a tensor of one element. It
                is called for every forward of the step, with the same random state; it must not
                call backward(), zero_grad() or step() of the parameters' optimizer.
            batch: given, the closure is called as closure(batch): a tensor, or a dict, list or
                tuple of tensors; with probe_fraction < 1 they share one first dimension.
            scaler: a torch.amp.GradScaler; gradients are then scaled, as scaler.unscale_ and
                scaler.step expect.

        Returns:
            The unperturbed loss, detached, 0-dim.

        Raises:
            TypeError, ValueError, RuntimeError: a closure that does something else; a model with
                other parameters than when the estimator was made; with check=True on the first
                call, a closure that gives another loss when it is repeated.
            FloatingPointError: (CPU, without capturable) a loss that is not finite; a probe's only
                with on_nonfinite="raise". After any error parameters and gradients are as they
                were; so are buffers and random states, where the estimator probes.

        Example:
            >>> loss = est.backward(lambda: F.cross_entropy(model(x), y))
        """
        if self._held.changed(self._call):
            self._look_at_modules()
        return self._estimate(closure, batch, scaler, self._capturing())

    def _estimate(self, closure: Closure, batch: Any, scaler: Any, captured: bool) -> Tensor:
        if not callable(closure):
            got = f"is a {type(closure).__name__}"
            _check.fail(self._call, "closure", got, FORWARD_ONLY, TypeError)
        if scaler is not None and not all(
            callable(getattr(scaler, method, None)) for method in ("scale", "unscale_")
        ):
            got = f"is a {type(scaler).__name__}"
            _check.fail(self._call, "scaler", got, "a torch.amp.GradScaler or None", TypeError)
        if torch.is_inference_mode_enabled():
            got = "is called in torch.inference_mode()"
            _check.fail(self._op, "backward", got, "a call outside of it", RuntimeError)
        if not self.capturable and self.calls >= MAX_CALLS:
            _check.fail(self._op, "calls", f"is {self.calls}", "fewer than 2^32 calls")
        self._optimizers.look()
        forward = closure if batch is None else partial(closure, batch)
        try:
            self._gradients.set_aside()
            with self._no_steps:
                last = self._step(forward, scaler)
        except BaseException:
            self._gradients.undo()
            raise
        self._gradients.commit()
        self._note_failures(last, scaler)
        self.last = last
        # in place, where they are tensors
        self.calls += 1
        self.forwards += last.forwards
        if self._captures is not None:
            last._live = True
            self._captures.held |= captured
        return last.loss

    def raise_if_failed(self) -> None:
        """Raise if a call since the last raise_if_failed() failed; waits for the device.

        ``backward`` itself waits for nothing: it ORs its failures into a status word on the device,
        which this reads and clears. A failure is an unperturbed loss that is not finite (on a CPU
        ``backward`` raises it), or a norm N of the gradient that is not (without a scaler, whose
        step() passes over such a gradient).

        Raises:
            FloatingPointError: with what was not finite.

        Example:
            >>> for batch in epoch:
            ...     est.backward(closure, batch); opt.step(); opt.zero_grad()
            >>> est.raise_if_failed()
        """
        status = int(self._status)
        self._status &= 0  # in place, where a tensor
        failed = " and ".join(what for bit, what in FAILURES.items() if status & bit)
        if failed:
            got = f"found {failed} not finite in a call since it was last asked"
            _check.fail(self._op, "raise_if_failed", got, "finite numbers", FloatingPointError)

    def check_optimizer(self, *optimizers: Any) -> None:
        """Raise if a parameter that requires grad is in none of the optimizers.

        A learned scale that quantize_ made after the optimizer is such a parameter. ``backward``
        itself warns once, when the optimizers that step lack parameters of quantized layers.

        Args:
            optimizers: one torch.optim.Optimizer, or all that train the model.

        Raises:
            ValueError: names of the missing parameters. TypeError: no optimizer.

        Example:
            >>> est.check_optimizer(optimizer)
        """
        check_optimizers(f"{self._op}.check_optimizer", self._model, optimizers)

    def state_dict(self) -> dict[str, Any]:
        """All that a continued run needs beside the model: counters, options, tensor numbers."""
        return {
            "estimator": self._op,
            "calls": int(self.calls),
            "forwards": int(self.forwards),
            "numbers": {target.name: target.number for target in self._targets},
            **self._options(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where ``state`` was taken.

        Raises:
            TypeError, ValueError: a state of another estimator, other options or other weights, or
                none that state_dict() makes; nothing has been changed then.
        """
        op = f"{self._op}.load_state_dict"
        if not isinstance(state, dict):
            got = f"is a {type(state).__name__}"
            _check.fail(op, "state", got, "the dict that state_dict() returned", TypeError)
        own = {"estimator": self._op, **self._options()}
        for name in self.state_dict():
            if name not in state:
                _check.fail(op, "state", f"has no {name!r}", "what state_dict() returned")
        for name, value in own.items():
            if state[name] != value:
                expected = f"{value!r} as this estimator was made with"
                _check.fail(op, name, f"is {state[name]!r}", expected)
        for name, limit in self._counters.items():
            value = state[name]
            if not _check.is_int(value) or not 0 <= value <= limit:
                _check.fail(op, name, f"is {value!r}", f"an int from 0 to {limit}")
        numbers = state["numbers"]
        if not isinstance(numbers, dict):
            got = f"is a {type(numbers).__name__}"
            _check.fail(op, "numbers", got, "a dict of the weights' numbers by name", TypeError)
        mine = {target.name for target in self._targets}
        for name in numbers.keys() ^ mine:
            got = f"{'lacks' if name in mine else 'has'} {name!r}"
            _check.fail(op, "numbers", got, "the names of this model's weights")
        owner: dict[int, str] = {}
        for name, number in numbers.items():
            if not _check.is_int(number) or not 0 <= number <= MAX_NUMBER:
                expected = f"an int from 0 to {MAX_NUMBER}"
                _check.fail(op, "numbers", f"has {number!r} for {name!r}", expected)
            if number in owner:
                got = f"has {number} for both {owner[number]!r} and {name!r}"
                _check.fail(op, "numbers", got, "another for each: its noise is drawn by it")
            owner[number] = name
        held = self._captures is not None and self._captures.held
        if held and any(target.number != numbers[target.name] for target in self._targets):
            got = "differ from those by which a captured call draws its noise"
            _check.fail(op, "numbers", got, "a capture after load_state_dict", RuntimeError)
        for target in self._targets:
            target.number = numbers[target.name]
        for name in self._counters:
            if self.capturable:  # a captured call reads this tensor and no other
                getattr(self, name).fill_(state[name])
            else:
                setattr(self, name, state[name])

    # ---- for the estimators

    def __getstate__(self) -> dict[str, Any]:
        """For a copy, whose first call shall see whether its closure uses the copied model."""
        return {**self.__dict__, "_unused_checked": False}

    def _look_at_modules(self) -> None:
        """Modules without parameters came or went: what was learned of them no longer holds."""
        if self._captures is not None:
            self._captures.forget()

    def _options(self) -> dict[str, Any]:
        return {"accumulate": self.accumulate}

    @abstractmethod
    def _step(self, forward: Forward, scaler: Any) -> Last:
        """Leave this call's own gradients in .grad and say what was done."""

    def _capturing(self) -> bool:
        """Whether a CUDA graph captures this call; one that it cannot hold is refused."""
        captured = _capture.capturing()
        captures = self._captures
        if captures is None:
            if captured:
                got = "is captured by a CUDA graph, which would repeat this very step"
                _check.fail(self._call, "step", got, "capturable=True", RuntimeError)
            return False
        assert isinstance(self.calls, Tensor)
        here = not self._parameters or self.calls.device == self._parameters[0].device
        if captured:
            captures.check(here)
        elif not here:
            captures.check_devices()
            for name in (*self._counters, "_status"):
                setattr(self, name, getattr(self, name).to(self._parameters[0].device))
        return captured

    def _call_number(self) -> Tensor | int:
        """Of this call, for its noise; a copy, as est.last is read when the count has gone on."""
        return self.calls.clone() if isinstance(self.calls, Tensor) else self.calls

    def _readable(self, tensor: Tensor) -> bool:
        """Whether the host reads values: not where a graph is to take its place."""
        return not self.capturable and readable(tensor)

    def _forward(self, forward: Forward, with_backward: bool = True) -> Tensor:
        """The unperturbed loss, checked."""
        if not self._unused_checked:
            for target in self._targets:
                target.forget_reads()
        repeat = None if self._repeat_checked else Repeat(self._model, self._parameters)
        if repeat is not None:
            repeat.keep()
        loss = forward()
        self._check_loss(loss, with_backward)
        if not self._unused_checked:
            self._check_unused()
            self._unused_checked = True
        if repeat is not None:
            self._gradients.seal()
            repeat.check(self._call, self._repeated(forward), loss)
            self._check_sealed("when it was repeated")
            self._repeat_checked = True
        return loss

    def _repeated(self, forward: Forward) -> Forward:
        """``forward`` for a repeat: what it returns is checked."""
        return lambda: check_one(self._call, forward(), " when it was repeated")

    def _check_sealed(self, where: str) -> None:
        if not self._gradients.sealed():
            got = f"called zero_grad() or backward() {where}"
            _check.fail(self._call, "closure", got, FORWARD_ONLY, RuntimeError)

    def _note_failures(self, last: Last, scaler: Any) -> None:
        if not self._readable(last.loss):
            self._note(LOSS, last.loss)
        if scaler is None and isinstance(last.norm, Tensor):
            self._note(NORM, last.norm)

    def _note(self, failure: int, value: Tensor) -> None:
        """OR ``failure`` into the status word where ``value`` is not finite; no device is read."""
        if self._readable(value):
            self._status |= 0 if math.isfinite(value.item()) else failure
            return
        failed = value.isfinite().logical_not().long() * failure
        if isinstance(self._status, Tensor):
            failed = failed.to(self._status.device)
        self._status |= failed

    def _back_propagate(self, loss: Tensor, scaler: Any) -> None:
        (loss if scaler is None else scaler.scale(loss)).backward()

    def _check_loss(self, loss: object, with_backward: bool) -> None:
        op = self._call
        misuse = self._gradients.misuse()
        if misuse is not None:
            _check.fail(op, "closure", f"called {misuse}", FORWARD_ONLY, RuntimeError)
        loss = check_one(op, loss)
        if with_backward and not loss.requires_grad:
            _check.fail(op, "closure", "returned a loss without gradient", "one that requires grad")
        if self._readable(loss) and not math.isfinite(value := loss.item()):
            _check.fail(op, "closure", f"returned {value}", "a finite loss", FloatingPointError)

    def _check_unused(self) -> None:
        unused = [t.name for t in self._targets if isinstance(t, QuantTarget) and not t.was_read]
        if unused and not self.allow_unused:
            got = f"never used the quantized {', '.join(unused)}"
            expected = (
                "every quantized weight of the estimator's own model in the forward "
                "(allow_unused=True accepts it; copy both at once: copy.deepcopy((model, est)))"
            )
            _check.fail(self._call, "closure", got, expected, RuntimeError)

    def _count(self, argument: str, value: Any, low: int = 1, high: int | None = None) -> int:
        if not _check.is_int(value) or value < low or (high is not None and value > high):
            expected = f"an int >= {low}" + ("" if high is None else f" and at most {high}")
            _check.fail(self._op, argument, f"is {value!r}", expected)
        return int(value)


def check_one(op: str, loss: object, where: str = "") -> Tensor:
    """``loss``, unless it is no real tensor of one element; ``where``: in which forward."""
    if not isinstance(loss, Tensor):
        got = f"returned a {type(loss).__name__}{where}"
        _check.fail(op, "closure", got, "a loss tensor of one element", TypeError)
    if loss.numel() != 1:
        got = f"returned shape {tuple(loss.shape)}{where}"
        _check.fail(op, "closure", got, "a loss tensor of one element")
    if loss.dtype.is_complex:
        got = f"returned dtype {str(loss.dtype).removeprefix('torch.')}{where}"
        _check.fail(op, "closure", got, "a real loss", TypeError)
    return loss


def as_scalar(loss: Tensor) -> Tensor:
    """Detached, 0-dim, in memory of its own: a mean may lie in that of all it was taken over."""
    own = loss.detach() if loss.requires_grad else loss
    return (own.reshape(()) if own.dim() else own).clone()


def readable(tensor: Tensor) -> bool:
    """Whether the host can read the values without waiting for a device."""
    return tensor.is_cpu
