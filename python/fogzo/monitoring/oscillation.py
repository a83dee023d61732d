"""How often codes change and change back."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from fogzo_kernels import _check

from ..estimators._base import Estimator
from ..estimators._targets import QuantTarget


class Oscillation:
    """Oscillation rate of each quantized weight, from its unperturbed codes of step to step.

    o_t = 1 where a code changes at t, against the direction of its change before, else 0
    rate_t = m mean(o_t) + (1 - m) rate_(t-1),  rate_0 = 0

    The mean goes over the weight's codes, so the rate is the mean of their oscillation
    frequencies. It costs a quantization and a comparison of the weights a step, and keeps two
    bytes a weight. Everything stays on the weights' device; nothing waits for it.

    Args:
        est: the estimator whose quantized weights are watched.
        momentum: m, in (0, 1]; the memory is about 1 / m steps.

    Raises:
        ValueError, TypeError: an argument outside its range.

    Example:
        >>> rates = fogzo.Oscillation(est).see()  # once a step

    Source: Nagel et al., "Overcoming Oscillations in Quantization-Aware Training", ICML 2022,
    arXiv 2203.11086: oscillations, and their frequency as a moving average.
    """

    def __init__(self, est: Estimator, momentum: float = 0.01) -> None:
        if not isinstance(est, Estimator):
            got = f"is a {type(est).__name__}"
            _check.fail("Oscillation", "est", got, "fogzo.STE, NSPSA or FOGZO", TypeError)
        text = "a number over 0 and at most 1"
        self.momentum = _check.number("Oscillation", "momentum", momentum, 0.0, 1.0, text)
        if self.momentum == 0:
            _check.fail("Oscillation", "momentum", f"is {momentum!r}", text)
        self._targets = [t for t in est._targets if isinstance(t, QuantTarget)]
        self._codes: dict[str, Tensor] = {}  # uint8, as last seen
        self._direction: dict[str, Tensor] = {}  # int8, sign of the last change; 0 before one
        self._rates: dict[str, Tensor] = {}  # 0-dim float32

    @torch.no_grad()
    def see(self) -> dict[str, Tensor]:
        """Compare the codes with those of the last call.

        Returns:
            {name: rate}, 0-dim float32 in [0, 1] on the weight's device; 0 after the first call.
            Weights whose quantization is off are left out.
        """
        for target in self._targets:
            name = target.name
            if not target.enabled:  # W has no codes: it begins anew when it is switched on
                for kept in (self._codes, self._direction, self._rates):
                    kept.pop(name, None)
                continue
            codes = target.unperturbed().codes
            assert isinstance(codes, Tensor)
            before = self._codes.get(name)
            self._codes[name] = codes
            if before is None or before.device != codes.device:
                self._direction[name] = torch.zeros_like(codes, dtype=torch.int8)
                self._rates[name] = torch.zeros((), device=codes.device)
                continue
            change = (codes > before).to(torch.int8) - (codes < before).to(torch.int8)
            direction = self._direction[name]
            back = (change * direction < 0).float().mean()
            self._rates[name] = self.momentum * back + (1 - self.momentum) * self._rates[name]
            self._direction[name] = torch.where(change != 0, change, direction)
        return dict(self._rates)

    def state_dict(self) -> dict[str, Any]:
        """Momentum, and by weight what ``see`` compares with next: copies, two bytes a weight."""
        weights = {
            name: {
                "codes": codes.clone(),
                "direction": self._direction[name].clone(),
                "rate": self._rates[name].clone(),
            }
            for name, codes in self._codes.items()
        }
        return {"momentum": self.momentum, "weights": weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken.

        Raises:
            TypeError, ValueError: a state of other weights or another momentum, or none that
                state_dict() makes; nothing has been changed then.
        """
        op, text = "Oscillation.load_state_dict", "what state_dict() returned"
        if not isinstance(state, dict) or state.keys() != {"momentum", "weights"}:
            _check.fail(op, "state", f"is a {type(state).__name__}", text, TypeError)
        if state["momentum"] != self.momentum:
            expected = f"{self.momentum!r} as this one was made with"
            _check.fail(op, "momentum", f"is {state['momentum']!r}", expected)
        if not isinstance(state["weights"], dict):
            got = f"is a {type(state['weights']).__name__}"
            _check.fail(op, "weights", got, text, TypeError)
        own = {target.name: target.unperturbed().codes for target in self._targets}
        loaded: dict[str, dict[str, Tensor]] = {}
        for name, tables in state["weights"].items():
            if name not in own:
                _check.fail(op, "weights", f"has {name!r}", "the names of the estimator's weights")
            codes = own[name]
            assert isinstance(codes, Tensor)
            if not isinstance(tables, dict) or tables.keys() != {"codes", "direction", "rate"}:
                _check.fail(op, name, f"is a {type(tables).__name__}", text, TypeError)
            for key, shape in (("codes", codes.shape), ("direction", codes.shape), ("rate", ())):
                if not isinstance(tables[key], Tensor):
                    got = f"has {key}, a {type(tables[key]).__name__}"
                    _check.fail(op, name, got, "a tensor", TypeError)
                if tables[key].shape != shape:
                    got = f"has {key} of shape {tuple(tables[key].shape)}"
                    _check.fail(op, name, got, f"{tuple(shape)}")
            loaded[name] = {key: t.to(codes.device, copy=True) for key, t in tables.items()}
        self._codes = {name: tables["codes"] for name, tables in loaded.items()}
        self._direction = {name: tables["direction"] for name, tables in loaded.items()}
        self._rates = {name: tables["rate"] for name, tables in loaded.items()}
