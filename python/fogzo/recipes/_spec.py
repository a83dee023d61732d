"""Estimators as typed on the command line: `fogzo:gamma=1e-3:probes=10`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

import fogzo

from ..estimators._probing import MAX_PROBES, MODES
from ._recipe import Recipe


class UsageError(ValueError):
    """The user typed something the command line does not accept (exit code 2)."""


def _gamma(text: str) -> float | str:
    value = text if text == "auto" else float(text)
    if isinstance(value, float) and not 0 <= value <= 1:
        raise ValueError
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def _probes(text: str) -> int:
    value = _count(text)
    if value > MAX_PROBES:
        raise ValueError
    return value


def _start(text: str) -> int:
    value = int(text)
    if value < 0:
        raise ValueError
    return value


def _rate(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise ValueError
    return value


def _fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


def _one_of(*choices: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise ValueError
        return text

    return parse


@dataclass(frozen=True)
class _Option:
    parse: Callable[[str], Any]
    expected: str


_OPTIONS = {
    "lr": _Option(_rate, "a positive number"),
    "probes": _Option(
        _probes, f"a whole number from 1 to {MAX_PROBES} (each costs every step a forward or two)"
    ),
    "gamma": _Option(_gamma, "auto or a number from 0 to 1"),
    "ramp_steps": _Option(_count, "a whole number of at least 1"),
    "start": _Option(_start, "a whole number of at least 0"),
    "noise": _Option(_one_of("published", "rademacher"), "published or rademacher"),
    "difference": _Option(_one_of("central", "forward"), "central or forward"),
    "probe_fraction": _Option(_fraction, "a number over 0 and at most 1"),
    "probe_dtype": _Option(_one_of("int8"), "int8"),
    "probes_mode": _Option(_one_of(*MODES), " or ".join(MODES)),
    "surrogate": _Option(_one_of("identity", "clipped"), "identity or clipped"),
}
_OF_MODEL = ("surrogate",)
_PROBING = (
    "lr",
    "probes",
    "noise",
    "difference",
    "probe_fraction",
    "probe_dtype",
    "probes_mode",
    "surrogate",
)

_KINDS: dict[str, tuple[Any, tuple[str, ...]]] = {
    "ste": (fogzo.STE, ("lr", "surrogate")),
    "fogzo": (fogzo.FOGZO, (*_PROBING, "gamma", "ramp_steps", "start")),
    "n-spsa": (fogzo.NSPSA, _PROBING),
}


@dataclass(frozen=True)
class EstimatorSpec:
    """One estimator to train with.

    label: as typed, the name in every file; kind: ste, fogzo or n-spsa; options: parsed values.
    """

    label: str
    kind: str
    options: Mapping[str, Any]

    def learning_rate(self, recipe: Recipe, override: float | None) -> float:
        """Adam's rate: the estimator's own lr, else --lr, else the recipe's."""
        if "lr" in self.options:
            return float(self.options["lr"])
        return recipe.learning_rates[self.kind] if override is None else override

    @property
    def model_options(self) -> dict[str, Any]:
        """Those that the recipe's model takes."""
        return {name: self.options[name] for name in _OF_MODEL if name in self.options}

    def make(self, model: nn.Module, seed: int) -> Any:
        """The estimator for a model."""
        others = ("lr", *_OF_MODEL)
        chosen = {name: value for name, value in self.options.items() if name not in others}
        if self.kind != "ste":
            chosen["seed"] = seed
        return _KINDS[self.kind][0](model, **chosen)


def _parse_one(text: str) -> EstimatorSpec:
    kind, *pairs = text.split(":")
    if kind not in _KINDS:
        raise UsageError(f"train: estimator has name {kind!r}, expected one of {', '.join(_KINDS)}")
    allowed = _KINDS[kind][1]
    options: dict[str, Any] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if name not in allowed:
            raise UsageError(
                f"train: {kind} has option {name!r}, expected one of {', '.join(allowed)}"
            )
        option = _OPTIONS[name]
        if name in options:
            raise UsageError(f"train: {kind} has option {name!r} twice, expected it once")
        try:
            options[name] = option.parse(value)
        except ValueError:
            got = repr(value) if equals else "no value"
            raise UsageError(
                f"train: {kind} option {name} has {got}, expected {option.expected}"
            ) from None
    return EstimatorSpec(text, kind, options)


def parse_estimators(text: str) -> list[EstimatorSpec]:
    """Parse a comma-separated list of estimators, each with options behind colons.

    Args:
        text: e.g. "ste,fogzo:gamma=1e-3:probes=10,n-spsa".

    Returns:
        The estimators, in the order typed.

    Raises:
        UsageError: an unknown estimator or option, a value out of range, the same text twice.

    Example:
        >>> parse_estimators("ste,n-spsa:probes=100")[1].options
        {'probes': 100}
    """
    specs = [_parse_one(part.strip()) for part in text.split(",")]
    labels = [spec.label for spec in specs]
    for label in labels:
        if labels.count(label) > 1:
            raise UsageError(f"train: estimators has {label!r} twice, expected each once")
    return specs
