"""How the weights and the input of a layer are quantized."""

from __future__ import annotations

from dataclasses import dataclass

import fogzo_kernels as fk
from fogzo_kernels import _check, _surrogate

SCALES = ("fixed", "absmean", "absmax", "lsq", "quest", "stretched")
LEARNED = {"lsq": "scale", "stretched": "alpha"}  # rule: the parameter that it learns
STRETCHED_CLIP = 0.99  # of alpha: up to there a stretched weight gets a gradient
GRANULARITIES = ("tensor", "channel", "group")
ACT_BITS = (8, 4, 2, 1)


@dataclass(frozen=True)
class QuantConfig:
    """Grid, scale rule and surrogate of quantized weights, bits of inputs; checked when made.

    The quantized weight is a * value(W / a), with a from the scale rule.

    Args:
        grid: "mid-rise", "mid-tread", "ternary" or "sign".
        bits: 2..8 for mid-rise and mid-tread; without meaning for ternary and sign.
        scale: "fixed" (Gaussian-MSE-optimal multiple of the RMS of W when the layer is quantized,
            then a constant), "absmean" (mean abs W, each forward; sign and ternary only),
            "absmax" (max abs W / v_max, each forward), "lsq" (learned; begins at
            2 mean abs W / sqrt(Q_P)), "quest" (W and the input rotated by a Hadamard matrix, the
            fixed multiple of each row's RMS, each forward) or "stretched" (alpha / (v_max + 1/2)
            with alpha learned from max abs W on; mid-rise of 2..7 bits and ternary).
        granularity: one scale per "tensor", per output "channel", or per "group".
        group_size: inputs that share a scale; divides in_features. For "group" only.
        surrogate: what the backward pass pretends; None: trust for quest, hardtanh for sign, else
            clipped.
        act_bits: None, or 8, 4, 2 or 1: the layer quantizes its input to so many bits, each token
            (row) by a scale of its own, max abs x / (2^(act_bits-1) - 1), 1 bit: mean abs x.
        scale_value: a > 0 in the unit of W, in place of the fixed rule's value.

    Raises:
        ValueError: a value outside its range, or a pair of surrogate and grid that does not exist.

    Example:
        >>> QuantConfig(grid="mid-rise", bits=2).values.v_max
        1.5

    Source: Yang & Aamodt, arXiv 2510.23926 (fixed, the surrogates); BitNet b1.58, arXiv 2402.17764
    (absmean, inputs by token); LSQ, arXiv 1902.08153; QuEST, arXiv 2502.05003; ParetoQ, arXiv
    2502.02631 (stretched).
    """

    grid: str = "mid-rise"
    bits: int | None = 2
    scale: str = "fixed"
    granularity: str = "channel"
    surrogate: str | None = None
    act_bits: int | None = None
    group_size: int | None = None
    scale_value: float | None = None

    def __post_init__(self) -> None:
        op = "QuantConfig"
        grid = self.values  # refuses an unknown kind and bits out of range
        _check.choice(op, "scale", self.scale, SCALES)
        if self.scale == "absmean" and grid.kind not in ("sign", "ternary"):
            _check.fail(op, "scale", f"is 'absmean' for grid {grid.kind!r}", "grid sign or ternary")
        if self.scale == "stretched":
            self._check_stretched(op)
        _check.choice(op, "granularity", self.granularity, GRANULARITIES)
        if self.scale == "quest" and self.granularity != "channel":
            got = f"is {self.granularity!r} for scale 'quest'"
            _check.fail(op, "granularity", got, "'channel'")
        if (self.granularity == "group") != (self.group_size is not None):
            expected = "an int >= 1" if self.granularity == "group" else "None"
            got = f"is {self.group_size!r} for granularity {self.granularity!r}"
            _check.fail(op, "group_size", got, expected)
        group = self.group_size
        if group is not None and (not _check.is_int(group) or group < 1):
            _check.fail(op, "group_size", f"is {group!r}", "an int >= 1")
        bits = self.act_bits
        if bits is not None and (not _check.is_int(bits) or bits not in ACT_BITS):
            _check.fail(op, "act_bits", f"is {bits!r}", "None, 8, 4, 2 or 1")
        if self.scale_value is not None:
            self._check_scale_value(op)
        _surrogate.check(op, self.surrogate_name, grid=grid)
        if self.surrogate == "trust" and self.scale != "quest":
            _check.fail(op, "surrogate", f"is 'trust' for scale {self.scale!r}", "scale 'quest'")

    def _check_stretched(self, op: str) -> None:
        grid = self.values
        if grid.kind not in ("mid-rise", "ternary") or grid.bits == 8:
            bits = "" if grid.bits is None else f" of {grid.bits} bits"
            got = f"is 'stretched' for grid {grid.kind!r}{bits}"
            _check.fail(op, "scale", got, "grid mid-rise of 2..7 bits, or ternary")
        if self.surrogate not in (None, "clipped"):
            got = f"is {self.surrogate!r} for scale 'stretched'"
            _check.fail(op, "surrogate", got, "None or 'clipped'")

    def _check_scale_value(self, op: str) -> None:
        if self.scale != "fixed":
            got = f"is {self.scale_value!r} for scale {self.scale!r}"
            _check.fail(op, "scale_value", got, "None (only scale 'fixed' takes one)")
        value = self.scale_value
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            _check.fail(op, "scale_value", f"is {value!r}", "a float", TypeError)
        if not _check.MIN_SCALE <= value <= 1 / _check.MIN_SCALE:  # its multiples are finite too
            _check.fail(op, "scale_value", f"is {value!r}", "a number from 2^-100 to 2^100")

    @property
    def values(self) -> fk.Grid:
        """The grid as fogzo_kernels takes it."""
        takes_bits = self.grid not in ("sign", "ternary")
        if not takes_bits and self.bits not in (None, 1, 2):
            got = f"is {self.bits!r} for grid {self.grid!r}"
            _check.fail("QuantConfig", "bits", got, "None (the grid has its own)")
        return fk.Grid(self.grid, bits=self.bits if takes_bits else None)

    @property
    def surrogate_name(self) -> str:
        """The surrogate; where none is named trust for quest, else the grid's default."""
        if self.surrogate is not None:
            return self.surrogate
        return "trust" if self.scale == "quest" else self.values.default_surrogate

    @property
    def dynamic(self) -> bool:
        """Whether the scale follows W at every forward."""
        return self.scale in ("absmean", "absmax", "quest")

    @property
    def learned(self) -> str | None:
        """Name of the layer's parameter that the scale is learned in, None for other rules."""
        return LEARNED.get(self.scale)

    @property
    def rotated(self) -> bool:
        """Whether W and the input are rotated before they are multiplied."""
        return self.scale == "quest"

    @property
    def stretch(self) -> float:
        """alpha / a of the stretched rule: v_max + 1/2, the levels to one side of 0."""
        return self.values.v_max + 0.5

    @property
    def limit(self) -> float | None:
        """abs x in bins up to which a stretched weight gets a gradient; None: the grid's range."""
        return STRETCHED_CLIP * self.stretch if self.scale == "stretched" else None


def given_config(op: str, config: object) -> QuantConfig:
    """The config, QuantConfig() for None; anything else is refused."""
    if config is None:
        return QuantConfig()
    if not isinstance(config, QuantConfig):
        got = f"is a {type(config).__name__}"
        _check.fail(op, "config", got, "a QuantConfig", TypeError)
    return config
