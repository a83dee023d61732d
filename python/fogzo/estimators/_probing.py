"""What NSPSA and FOGZO share: probes of perturbed weights, and the gradient their losses give."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from fogzo_kernels import _check, _surrogate

from .._warn import warn
from ._base import MAX_CALLS, Closure, Estimator, Forward, as_scalar, check_one
from ._batch import first_rows
from ._capture import capturing
from ._fused import unfused
from ._ranks import Ranks
from ._resolution import ResolutionWatch
from ._run import Run
from ._snapshot import Buffers, RandomStates
from ._targets import InPlace, InPlaceOfWeights, QuantTarget, Target
from ._turns import Turns, check_state, circumstances_of
from .record import Differences, Guided, Last

MAX_PROBES = 2**20  # each is a forward or two in every step, and keeps its losses
SIDES = {"central": 2, "forward": 1}  # forwards of a probe, by the kind of difference
MODES = ("sequential", "batched")


class Probing(Estimator):
    """An estimator that measures differences of the loss along perturbations of the weights."""

    _counters = Estimator._counters | {"fallbacks": MAX_CALLS}
    _without_probes = "G is the straight-through gradient"
    _needs = "has a gradient (are all frozen, or does a hook set .grad to None?)"
    fallbacks: Tensor | int

    def __init__(
        self,
        model: nn.Module,
        *,
        probes: int,
        seed: int,
        noise: str,
        everything: bool,
        accumulate: int,
        on_nonfinite: str,
        allow_unused: bool,
        difference: str,
        probe_fraction: float,
        probe_dtype: str | None,
        probes_mode: str,
        process_group: Any,
        check: bool,
        capturable: bool,
    ) -> None:
        op = type(self).__name__
        _surrogate.check(op, "identity", noise)
        if probe_dtype is not None and probe_dtype != "int8":
            _check.fail(op, "probe_dtype", f"is {probe_dtype!r}", "None or 'int8'")
        super().__init__(
            model,
            accumulate=accumulate,
            allow_unused=allow_unused,
            everything=everything,
            noise=noise,
            probe_act_bits=None if probe_dtype is None else 8,
            check=check,
            capturable=capturable,
        )
        self.probes = self._count("probes", probes, high=MAX_PROBES)
        if not _check.is_int(seed) or not -(2**63) <= seed < 2**64:
            _check.fail(op, "seed", f"is {seed!r}", "an int of 64 bits")
        _check.choice(op, "on_nonfinite", on_nonfinite, ("ste", "raise"))
        if capturable and on_nonfinite == "raise":
            got = "is 'raise', which reads losses, with capturable=True"
            _check.fail(op, "on_nonfinite", got, "'ste'")
        self.seed, self.noise, self.everything = seed % 2**64, noise, everything
        self.on_nonfinite = on_nonfinite
        _check.choice(op, "difference", difference, tuple(SIDES))
        text = "a number over 0 and at most 1"
        fraction = _check.number(op, "probe_fraction", probe_fraction, 0.0, 1.0, text)
        if fraction == 0:
            _check.fail(op, "probe_fraction", f"is {probe_fraction!r}", text)
        self.difference, self.probe_fraction = difference, fraction
        self.probe_dtype = probe_dtype
        _check.choice(op, "probes_mode", probes_mode, MODES)
        self.probes_mode = probes_mode
        self.why_sequential: str | None = None
        self._turns, self._circumstances, self._said = Turns(), "", False
        self._ranks = Ranks(op, model, process_group)
        if capturable and self._ranks.group is not None:
            got = "is True, with the processes of a DistributedDataParallel or a process_group"
            _check.fail(op, "capturable", got, "False: a graph holds the step of one process")
        # weights that probes multiply otherwise than the step's own forward does
        self._changed = [t for t in self._targets if isinstance(t, QuantTarget) and t.changes]
        self._part: Forward | None = None  # the closure with a part of the batch
        if not capturable:
            self.fallbacks = 0
        self._warned = self._warned_of_plain = False
        if not self._targets:
            expected = "fogzo.quantize_(model, config) first, or everything=True"
            _check.fail(op, "model", "has no quantized weight", expected)
        for target in self._targets:
            _surrogate.check(op, target.surrogate, noise, target.grid)
        self._d = sum(target.weight.numel() for target in self._targets)
        self._buffers = Buffers(model)
        self._random = RandomStates(self._parameters)
        self._differences = Differences(self.probes, SIDES[difference], not capturable)
        self._resolution = ResolutionWatch(op, not capturable)

    def _look_at_modules(self) -> None:
        super()._look_at_modules()
        self._buffers = Buffers(self._model)

    def _estimate(self, closure: Closure, batch: Any, scaler: Any, captured: bool) -> Tensor:
        if self.last is not None:
            self.last.release()
        if self.probe_fraction < 1:
            rows = first_rows(self._call, batch, self.probe_fraction)
            self._part = lambda: closure(rows)
        if self.probes_mode == "batched" and callable(closure):
            device = self._targets[0].weight.device.type
            self._circumstances = circumstances_of(closure, self._model.training, device)
        self._ranks.check(self._call)
        with self._ranks.step():
            self._random.keep(captured)
            self._buffers.keep()
            try:
                loss = super()._estimate(closure, batch, scaler, captured)
            except BaseException:
                for target in self._targets:
                    target.clear()
                self._buffers.undo(captured)
                self._random.rewind()
                raise
            finally:
                self._part = None
        assert self.last is not None
        self._resolution.see(self.last)
        return loss

    def raise_if_failed(self) -> None:
        self._warn()
        super().raise_if_failed()

    def state_dict(self) -> dict[str, Any]:
        self._warn()
        own = {"fallbacks": int(self.fallbacks), "why_sequential": self._turns.state()}
        return super().state_dict() | own

    def load_state_dict(self, state: dict[str, Any]) -> None:
        if isinstance(state, dict) and "why_sequential" in state:
            check_state(f"{self._op}.load_state_dict", state["why_sequential"])
        super().load_state_dict(state)
        self._turns.load(state["why_sequential"])
        self._said = self._turns.any

    load_state_dict.__doc__ = Estimator.load_state_dict.__doc__

    def _options(self) -> dict[str, Any]:
        return super()._options() | {
            "probes": self.probes,
            "seed": self.seed,
            "noise": self.noise,
            "everything": self.everything,
            "difference": self.difference,
            "probe_fraction": self.probe_fraction,
            "probe_dtype": self.probe_dtype,
            "probes_mode": self.probes_mode,
        }

    def _measure(self, forward: Forward, guided: Guided, last: Last) -> tuple[Tensor, bool | None]:
        """Run the probes and note their figures in ``last``; the random state is left as found.

        Returns:
            D of each probe, and whether all losses were finite (None: not readable).
        """
        sides = SIDES[self.difference]
        last.forwards += sides * self.probes
        after = self._random.read()
        if self._captures is not None:
            self._captures.learn(self._random.drawn())
        self._gradients.seal()
        with unfused:
            self._ranks.begin_probes()
            losses = self._losses(forward, guided, last, after)
        self._random.write(after)
        self._check_sealed("in a probe")
        last._losses, last._sides = self._ranks.mean(losses), sides
        difference, finite = self._differences.of(last._losses)
        return difference.to(guided.guides[0].device), finite

    def _losses(
        self, forward: Forward, guided: Guided, last: Last, after: list[Tensor]
    ) -> list[Tensor]:
        """L+ and L- (or the base) of each probe in turn."""
        # not perturbed, for want of a gradient, but multiplied like the others
        chosen = {id(target) for target in guided.targets} if self._changed else set()
        still = [target for target in self._changed if id(target) not in chosen]
        base = None if self.difference == "central" else self._base_loss(forward, last)
        run = Run(
            guided=guided,
            targets=(*guided.targets, *still),
            still=[target.unperturbed() for target in still],
            loss=partial(self._probe_loss, self._part or forward),
            difference=self.difference,
            probes=self.probes,
        )
        losses = self._together(run, after) if self.probes_mode == "batched" else None
        if losses is None:
            losses = run.in_turn()
            last.why_sequential = self.why_sequential
        else:
            last.probes_mode = "batched"
        if self.probes_mode == "batched":  # not where the closure itself raises
            self._turns.note(self.why_sequential)
        last._flips, last._probed = run.flips, (guided.targets, run.read)
        return losses if base is None else [loss for plus in losses for loss in (plus, base)]

    def _together(self, run: Run, after: list[Tensor]) -> list[Tensor] | None:
        """The losses of one forward for all probes; None where there is a ``why_sequential``."""
        self.why_sequential = self._turns.known(self._circumstances, capturing())
        if self.why_sequential is not None:
            return None
        self._random.rewind()
        losses = run.together()
        if losses is not None and self._part is None and not self._random.are(after):
            losses, run.refused = None, "it draws other random numbers than one forward does"
        self.why_sequential = run.refused
        if losses is None and not self._said:
            self._said = True
            warn(
                f"{self._op}: probes_mode 'batched' is not possible here, probes run one after the "
                f"other: {self.why_sequential}"
            )
        return losses

    def _base_loss(self, forward: Forward, last: Last) -> Tensor:
        """0-dim: the loss without perturbation, of the rows and by the products of the probes."""
        if self._part is None and not self._changed:
            return last.loss
        last.forwards += 1
        codes = [target.unperturbed() for target in self._changed]
        return self._probe_loss(self._part or forward, self._changed, codes)

    def _probe_loss(
        self,
        forward: Forward,
        targets: Sequence[Target],
        given: Sequence[InPlace],
        together: bool = False,
    ) -> Tensor:
        """0-dim: the loss with ``given`` for the weights, all else as in the step."""
        if not together:
            self._random.rewind()
        with self._buffers.scratch(together), InPlaceOfWeights(targets, given):
            loss = forward()
        return as_scalar(check_one(self._call, loss, " for a probe"))

    def _kept(self, last: Last, finite: bool | None) -> Tensor | bool:
        """Whether G takes the place of the gradient; a tensor where no host may read it."""
        if finite is None:
            kept = torch.isfinite(last.difference).all()
            if self.on_nonfinite == "ste":
                if not self.capturable:
                    self.fallbacks = self.fallbacks + (~kept).long()
                    return kept
                used = last._used
                self.fallbacks += (~kept if used is None else ~kept & used).long()
                return kept if used is None else kept & used
            finite = bool(kept)
        if not finite:
            if self.on_nonfinite == "raise":
                got = f"returned {last.losses.tolist()} for the probes"
                _check.fail(self._call, "closure", got, "finite losses", FloatingPointError)
            self.fallbacks = self.fallbacks + 1
            self._warn_of_fallbacks()
        return finite

    def _put(
        self,
        guided: Guided,
        difference: Tensor,
        kept: Tensor | bool,
        plain: list[Tensor],
        factor: Tensor | None,
        in_place: bool = False,
    ) -> None:
        """Leave G in .grad of the weights, or ``plain`` where it is not to be kept.

        Args:
            factor: G is multiplied by it; None: by 1.
            in_place: G may be written over the guides; where they are large they are let go, a
                part of the weights after the other, and so is ``plain``.
        """
        if kept is False:
            set_gradients(guided.targets, plain)
            return
        over = in_place and guided.large
        for part in guided.parts():
            outs = None
            if over and kept is True:
                outs = [g if g.is_contiguous() else None for g in guided.guides[part]]
            rows = guided.gradient(difference, part, outs=outs)
            targets = guided.targets[part]
            estimate = [t.from_probe_space(own) for t, own in zip(targets, rows, strict=True)]
            if factor is not None:
                estimate = [gradient.mul_(factor) for gradient in estimate]
            if kept is not True:
                pairs = zip(estimate, plain[part], strict=True)
                estimate = [torch.where(kept, gradient, g) for gradient, g in pairs]
            set_gradients(targets, estimate)
            if over:
                guided.guides[part] = plain[part] = estimate

    def _warn_of_plain(self) -> None:
        """Of a step without probes, unless quantization is switched off."""
        if not self._warned_of_plain and any(target.enabled for target in self._targets):
            self._warned_of_plain = True
            warn(f"{self._op}: a step without probes: no weight that they perturb {self._needs}")

    def _warn(self) -> None:
        """Say what devices counted; waits for them."""
        self._warn_of_fallbacks()
        self._resolution.warn()

    def _warn_of_fallbacks(self) -> None:
        if not self._warned and int(self.fallbacks) > 0:
            self._warned = True
            warn(
                f"{self._op}: a probe's loss was not finite in {int(self.fallbacks)} steps so far; "
                f"there {self._without_probes}"
            )


def scale_of(scaler: Any, device: torch.device) -> Tensor | None:
    """The scaler's factor on the device, not read by the host; None without a scaler."""
    if scaler is None:
        return None
    factor: Tensor = scaler.scale(torch.ones((), device=device))
    return factor


def set_gradients(targets: Sequence[Target], estimate: Sequence[Tensor]) -> None:
    for target, gradient in zip(targets, estimate, strict=True):
        target.weight.grad = gradient
