"""FOGZO: zeroth-order gradients along perturbations guided by the straight-through gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

import fogzo_kernels as fk

from . import _gamma
from ._base import Forward, as_scalar
from ._probing import Probing, scale_of
from ._targets import Target
from .record import Guided, Last


class FOGZO(Probing):
    """First-Order-Guided Zeroth-Order gradient of the quantized weights.

    v_i = sqrt(1 - gamma) s_i g'/N + sqrt(gamma) u_i, g' = e a g the whitened gradient, N = |g'|
    D_i = (L(Q(W + e a v_i)) - L(Q(W - e a v_i))) / 2
    G   = (1/n) sum_i D_i v_i / (e a)          in place of g; other parameters keep theirs

    Args:
        model: with quantized layers.
        probes: n >= 1, two forward passes each.
        gamma: 1 - beta in [0, 1], or "auto": min(1e-3, 1/d) for d perturbed weights.
        ramp_steps: None, constant gamma; R, gamma * min(1, t/R) at schedule step t.
        start: schedule steps of plain STE before the first probe.
        seed: of the perturbations, 64 bits.
        noise: "published" or "rademacher".
        accumulate: calls that make one schedule step; t = calls // accumulate.
        on_nonfinite: where a probe's loss is not finite: "ste", keep g (counted in
            last.fallbacks), or "raise".
        allow_unused: accept quantized weights that the forward never uses.
        everything: perturb the float parameters too, by 1e-3 along u, without rounding.
        difference: "central", or "forward": D_i = L(Q(W + e a v_i)) - L(Q(W)), one forward pass a
            probe in place of two, for a difference whose even terms no longer cancel.
        probe_fraction: f in (0, 1]: the probes see the first ceil(f B) rows of ``batch``, which
            backward then needs; with "forward" one more pass measures L(Q(W)) on them.
        probe_dtype: None, or "int8": in the probes each quantized layer quantizes its input to 8
            bits, a scale a token, and multiplies integers by the packed codes of its weight (a
            layer with act_bits does so anyway, with its own bits); with "forward" one more pass
            measures L(Q(W)) that way. last.float_probes names the weights that stay float.
        probes_mode: "sequential", or "batched": all probes in one forward, which torch.vmap maps
            over their weights: the same losses but for rounding, with activations for all sides at
            once. Where the model cannot be mapped, last.why_sequential says why, and the probes
            run one after the other; that closure is tried again at every hundredth call, or at
            once in train in place of eval mode, or under another autocast.
        process_group: whose processes' losses are averaged; None: those of the
            DistributedDataParallel in ``model``, if there is one.
        check: repeat the forward of the first call, and raise where it gives another loss, with
            the name of what differs; costs that call a forward pass and a wait for the device.
        capturable: no value is read by the host, so that a CUDA graph may capture a call after an
            eager one: each replay is the next step. The probes run before ``start`` too, to no
            effect. The forward must draw no random numbers; docs/cuda-graphs.md.

    Raises:
        ValueError, TypeError: no quantized weight, or an argument outside its range.

    Example:
        >>> est = fogzo.FOGZO(model)
        >>> loss = est.backward(lambda: criterion(model(x), y))

    Source: Yang & Aamodt, arXiv 2510.23926.
    """

    def __init__(
        self,
        model: nn.Module,
        probes: int = 1,
        gamma: float | str = "auto",
        ramp_steps: int | None = None,
        seed: int = 0,
        start: int = 0,
        noise: str = "published",
        accumulate: int = 1,
        on_nonfinite: str = "ste",
        allow_unused: bool = False,
        everything: bool = False,
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
        self.gamma = _gamma.max_gamma(self._op, gamma, self._d)
        self.ramp_steps = None if ramp_steps is None else self._count("ramp_steps", ramp_steps)
        self.start = self._count("start", start, low=0)
        _gamma.warn_regime(self._op, self.gamma, self._d)
        kinds = [(target.grid, target.surrogate) for target in self._targets]
        _gamma.warn_drowning(self._op, self.gamma, noise, kinds)

    def _options(self) -> dict[str, Any]:
        own = {"gamma": self.gamma, "ramp_steps": self.ramp_steps, "start": self.start}
        return super()._options() | own

    def _step(self, forward: Forward, scaler: Any) -> Last:
        loss = self._forward(forward)
        self._buffers.end_of_forward()
        self._back_propagate(loss, scaler)
        last = Last(as_scalar(loss), fallbacks=self.fallbacks)
        t = self.calls // self.accumulate
        targets = [t for t in self._targets if t.weight.grad is not None and t.enabled]
        if not targets:
            self._warn_of_plain()
            return last
        if isinstance(t, Tensor):
            last.gamma = _gamma.on_device(self.gamma, self.ramp_steps, t)
            if self.start:
                last._used = t >= self.start
                last.gamma = torch.where(last._used, last.gamma, 0.0)
        elif t < self.start:
            return last
        else:
            last.gamma = _gamma.at(self.gamma, self.ramp_steps, t)
        with torch.no_grad():
            self._replace(forward, targets, scaler, last)
        return last

    def _replace(self, forward: Forward, targets: list[Target], scaler: Any, last: Last) -> None:
        """Put G in the place of g."""
        scaled = [gradient_of(target) for target in targets]
        factor = scale_of(scaler, scaled[0].device)
        plain = scaled if factor is None else unscaled(scaled, factor)
        columns = zip(targets, plain, strict=True)
        guides = [target.to_probe_space(gradient) for target, gradient in columns]
        draw = {"seed": self.seed, "step": self._call_number(), "noise": self.noise}
        guided = Guided(targets, guides, draw | {"gamma": last.gamma})
        last.norm = fk.whitened_norm(guides, guided.scales, guided.surrogates, noise=self.noise)
        guided.draw["norm"] = last.norm
        last._guided = guided
        difference, finite = self._measure(forward, guided, last)
        kept = self._kept(last, finite)
        if guided.large:
            last.settle()
        elif kept is False:  # ``last`` keeps the guide itself
            scaled = [gradient.clone() for gradient in scaled]
        self._put(guided, difference, kept, scaled, factor, in_place=True)
        last.fallbacks = self.fallbacks


def gradient_of(target: Target) -> Tensor:
    gradient = target.weight.grad
    assert gradient is not None
    return gradient.to_dense() if gradient.is_sparse else gradient


def unscaled(gradients: list[Tensor], factor: Tensor) -> list[Tensor]:
    inverse = factor.double().reciprocal().float()  # as GradScaler.unscale_ makes it
    return [gradient * inverse for gradient in gradients]
