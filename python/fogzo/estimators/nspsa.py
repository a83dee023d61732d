"""n-SPSA: zeroth-order gradients along random perturbations, without a guide."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ._base import Forward
from ._probing import Probing, scale_of, set_gradients
from ._snapshot import Gradients, RandomStates
from ._targets import QuantTarget, in_place_of_weights
from .record import Last


class NSPSA(Probing):
    """Simultaneous perturbation: G = (1/n) sum_i D_i u_i / (e a), FOGZO with gamma = 1.

    Back-propagation runs only for trainable parameters that are not perturbed, and not through the
    quantized weights; without any, a step is 1 + 2n forward passes and no graph is kept.

    Args:
        model: with quantized layers.
        probes: n >= 1, two forward passes each.
        seed, noise, accumulate, allow_unused: as FOGZO's.
        everything: perturb the float parameters too, by 1e-3 along u, without rounding.
        on_nonfinite: where a probe's loss is not finite: "ste" makes that step's G zero (there is
            no g; counted in last.fallbacks), or "raise".

    Raises:
        ValueError, TypeError: no quantized weight, or an argument outside its range.

    Example:
        >>> loss = fogzo.NSPSA(model, probes=100).backward(lambda: criterion(model(x), y))

    Source: Spall, IEEE TAC 37(3), 1992; as the baseline of Yang & Aamodt, arXiv 2510.23926.
    """

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
        )

    def _step(
        self, op: str, forward: Forward, scaler: Any, gradients: Gradients, random: RandomStates
    ) -> Last:
        perturbed = {id(target.weight) for target in self._targets}
        others = any(p.requires_grad and id(p) not in perturbed for p in self._parameters)
        quantized = [target for target in self._targets if isinstance(target, QuantTarget)]
        with torch.no_grad():
            values = [target.layers[0].quantized_weight() for target in quantized]
        # constants for the quantized weights: back-propagation then spends nothing on them
        with in_place_of_weights(quantized, values):
            loss = self._unperturbed(op, forward, scaler, gradients, with_backward=others)
        last = Last(loss, gamma=1.0, forwards=3 if others else 1, fallbacks=self.fallbacks)
        targets = self._trained()
        if not targets:
            return last
        weights = [target.weight.detach() for target in targets]
        draw = {
            "seed": self.seed,
            "step": self.calls,
            "gamma": 1.0,
            "norm": 0.0,
            "noise": self.noise,
        }
        # with norm 0 the operations give the guide no weight; any tensor of the shape will do
        estimate = self._estimate(op, forward, targets, weights, draw, random, last)
        factor = scale_of(scaler, loss.device)
        if factor is not None:
            estimate = [gradient * factor for gradient in estimate]
        zeros = [torch.zeros_like(weight) for weight in weights]
        set_gradients(targets, self._accept(op, last, estimate, zeros))
        last.predicted = torch.full_like(last.difference, float("nan"))
        last.fallbacks = self.fallbacks
        return last
