"""n-SPSA: zeroth-order gradients along random perturbations, without a guide."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from fogzo_kernels import _check

from ._base import Forward, as_scalar
from ._probing import Probing, scale_of
from ._steps import FORWARD_ONLY
from ._targets import InPlace, InPlaceOfWeights, QuantTarget, Target
from .record import Guided, Last


class NSPSA(Probing):
    """Simultaneous perturbation: G = (1/n) sum_i D_i u_i / (e a), FOGZO with gamma = 1.

    Back-propagation runs only for trainable parameters that are not perturbed, and not through the
    quantized weights; without any, a step is 1 + 2n forward passes and no graph is kept.

    Args:
        model: with quantized layers.
        probes: n >= 1, two forward passes each.
        seed, noise, accumulate, allow_unused, difference, probe_fraction, probe_dtype,
        probes_mode, process_group, check, capturable: as FOGZO's.
        everything: perturb the float parameters too, by 1e-3 along u, without rounding; all that
            are trainable, whether the forward reads them or not.
        on_nonfinite: where a probe's loss is not finite: "ste" makes that step's G zero (there is
            no g; counted in last.fallbacks), or "raise".

    Raises:
        ValueError, TypeError: no quantized weight, or an argument outside its range.

    Example:
        >>> loss = fogzo.NSPSA(model, probes=100).backward(lambda: criterion(model(x), y))

    Source: Spall, IEEE TAC 37(3), 1992; as the baseline of Yang & Aamodt, arXiv 2510.23926.
    """

    _without_probes = "G is zero"
    _needs = "was read by the forward and requires grad"

    def __init__(
        self,
        model: nn.Module,
        probes: int = 1,
        seed: int = 0,
        noise: str = "published",
        everything: bool = False,
        accumulate: int = 1,
        on_nonfinite: str = "ste",
        allow_unused: bool = False,
        difference: str = "central",
        probe_fraction: float = 1.0,
        probe_dtype: str | None = None,
        probes_mode: str = "sequential",
        process_group: Any = None,
        check: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            model,
            probes=probes,
            seed=seed,
            noise=noise,
            everything=everything,
            accumulate=accumulate,
            on_nonfinite=on_nonfinite,
            allow_unused=allow_unused,
            difference=difference,
            probe_fraction=probe_fraction,
            probe_dtype=probe_dtype,
            probes_mode=probes_mode,
            process_group=process_group,
            check=check,
            capturable=capturable,
        )

    def _step(self, forward: Forward, scaler: Any) -> Last:
        perturbed = {id(target.weight) for target in self._targets if target.enabled}
        others = any(p.requires_grad and id(p) not in perturbed for p in self._parameters)
        loss = self._unperturbed(forward, scaler, others)
        last = Last(loss, fallbacks=self.fallbacks, forwards=3 if others else 1)
        enabled = [target for target in self._targets if target.enabled]
        targets = [t for t in enabled if t.was_read and t.weight.requires_grad]
        last.gamma = 1.0 if enabled else 0.0
        if targets:
            with torch.no_grad():
                self._replace(forward, targets, scaler, last)
        else:
            self._warn_of_plain()
        return last

    def _replace(self, forward: Forward, targets: list[Target], scaler: Any, last: Last) -> None:
        """Leave G in .grad of the perturbed weights."""
        # with norm 0 the operations give the guide no weight; any tensor of the shape will do
        weights = [target.latent() for target in targets]
        draw = {"seed": self.seed, "step": self._call_number(), "noise": self.noise}
        guided = Guided(targets, weights, draw | {"gamma": 1.0, "norm": 0.0})
        difference, finite = self._measure(forward, guided, last)
        kept = self._kept(last, finite)
        factor = scale_of(scaler, weights[0].device)
        zeros = [] if kept is True else [torch.zeros_like(target.weight) for target in targets]
        self._put(guided, difference, kept, zeros, factor)
        last.fallbacks = self.fallbacks

    def _unperturbed(self, forward: Forward, scaler: Any, others: bool) -> Tensor:
        """The loss, detached; ``others``: with the gradients of what is not perturbed."""
        every = [target for target in self._targets if isinstance(target, QuantTarget)]
        # a learned scale gets its gradient through Q(W), a disabled weight its own
        quantized = [target for target in every if target.enabled and not target.learned]
        with torch.no_grad():
            values: list[InPlace] = [t.layers[0].quantized_weight() for t in quantized]
            for i, target in enumerate(quantized):
                if target.integers:
                    values[i] = target.unperturbed(in_probe=False)
        for target in every:
            target.forget_reads()
        # constants for the quantized weights: back-propagation then spends nothing on them
        with InPlaceOfWeights(quantized, values):
            loss = self._forward(forward) if others else self._without_graph(forward)
            self._buffers.end_of_forward()
            if others:  # a checkpointed part runs its forward again
                self._back_propagate(loss, scaler)
        return as_scalar(loss)

    def _without_graph(self, forward: Forward) -> Tensor:
        try:
            with torch.no_grad():
                return self._forward(forward, with_backward=False)
        except RuntimeError as error:
            if "does not require grad" not in str(error):
                raise
            # what a backward() in the closure meets where no graph is recorded
            _check.fail(self._call, "closure", "called backward()", FORWARD_ONLY, RuntimeError)
