"""The value types of the public operations: Grid, Packed, Flips."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from . import _errors

KINDS = ("sign", "ternary", "mid-tread", "mid-rise")


@dataclass(frozen=True)
class Grid:
    """The set of values a quantized weight may take, in bins (units of the scale).

    A code is the index of a value, 0 .. levels - 1, and value = code * step + v_min with step 2 for
    ``sign`` and 1 otherwise. The quantized weight is scale * value.

    ============  =====================================  ==================================
    kind          values                                 rule (rne: round half to even)
    ============  =====================================  ==================================
    ``sign``      -1, +1                                 x >= 0 -> +1
    ``ternary``   -1, 0, 1                               clamp(rne(x), -1, 1)
    ``mid-tread`` -2^(b-1) .. 2^(b-1)-1                  clamp(rne(x))
    ``mid-rise``  -2^(b-1)+1/2 .. 2^(b-1)-1/2, step 1    clamp(rne(x - 1/2)) + 1/2
    ============  =====================================  ==================================

    Args:
        kind: one of the four names above.
        bits: 2..8 for ``mid-tread`` and ``mid-rise``; ``sign`` and ``ternary`` take none.

    Attributes:
        v_min, v_max: lowest and highest value, in bins.
        levels: number of values.
        code_bits: bits that hold one code (sign 1, ternary 2, else ``bits``).
        storage_bits: bits one packed code occupies: 1, 2, 4 or 8.
        positive_levels: Q_P = max(1, 2^(code_bits-1) - 1) of the LSQ rules.

    Raises:
        ValueError: an unknown kind, or bits outside its range.

    Example:
        >>> Grid("mid-rise", bits=2).v_max
        1.5
    """

    kind: str
    bits: int | None = None
    number: int = field(init=False, repr=False, compare=False)
    code_bits: int = field(init=False, repr=False, compare=False)
    storage_bits: int = field(init=False, repr=False, compare=False)
    levels: int = field(init=False, repr=False, compare=False)
    positive_levels: int = field(init=False, repr=False, compare=False)
    v_min: float = field(init=False, repr=False, compare=False)
    v_max: float = field(init=False, repr=False, compare=False)
    step: float = field(init=False, repr=False, compare=False)
    default_surrogate: str = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            _errors.fail("Grid", "kind", f"is {self.kind!r}", f"one of {', '.join(KINDS)}")
        if self.kind in ("sign", "ternary"):
            if self.bits is not None:
                _errors.fail("Grid", "bits", f"is {self.bits!r}", f"none for kind {self.kind!r}")
            code_bits, levels = (1, 2) if self.kind == "sign" else (2, 3)
            v_min, v_max = -1.0, 1.0
        else:
            if not _errors.is_int(self.bits) or not 2 <= int(self.bits or 0) <= 8:
                expected = f"an int in 2..8 for kind {self.kind!r}"
                expected += " (one bit is kind 'sign')" if repr(self.bits) == "1" else ""
                _errors.fail("Grid", "bits", f"is {self.bits!r}", expected)
            code_bits = int(self.bits or 0)
            levels = 2**code_bits
            shift = 0.5 if self.kind == "mid-rise" else 0.0
            v_min, v_max = -(2.0 ** (code_bits - 1)) + shift, 2.0 ** (code_bits - 1) - 1 + shift
        derived = {
            "number": KINDS.index(self.kind),
            "code_bits": code_bits,
            "storage_bits": storage_bits(code_bits),
            "levels": levels,
            "positive_levels": max(1, 2 ** (code_bits - 1) - 1),
            "v_min": v_min,
            "v_max": v_max,
            "step": 2.0 if self.kind == "sign" else 1.0,
            "default_surrogate": "hardtanh" if self.kind == "sign" else "clipped",
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)


def storage_bits(bits: int) -> int:
    """The bits one packed code of ``bits`` bits occupies: the next of 1, 2, 4, 8."""
    return 1 << (bits - 1).bit_length()


@dataclass(frozen=True)
class Packed:
    """Codes packed along the last dimension, code k of a byte in bits k*bits .. (k+1)*bits - 1.

    Attributes:
        data: uint8 [..., ceil(K * bits / 8)]; a row is padded to a whole byte with code 0.
        bits: stored width of a code: 1, 2, 4 or 8.
        shape: the unpacked shape [..., K].
    """

    data: Any
    bits: int
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Flips:
    """Perturbed codes as differences from the unperturbed ones, one row a probe side.

    Attributes:
        base: uint8, the shape of the weight: codes of the unperturbed weight.
        index: int64 [sides, capacity]: row-major element numbers, within this tensor (the local
            shard), of the codes that differ, ascending and each once; only the first count[s] of
            row s are meaningful, the rest is -1.
        code: uint8 [sides, capacity]: the new code of each; 0 behind count[s].
        count: int64 [sides].
    """

    base: Any
    index: Any
    code: Any
    count: Any


def arrays_of(name: str, value: Any) -> dict[str, Any]:
    """The arrays of an argument by their names: itself, or the parts of a Packed or a Flips.

    Example:
        >>> arrays_of("out", Packed("bytes", 2, (3,)))
        {'out.data': 'bytes'}
    """
    if isinstance(value, Packed):
        return {f"{name}.data": value.data}
    if isinstance(value, Flips):
        parts = ("base", "index", "code", "count")
        return {f"{name}.{part}": getattr(value, part) for part in parts}
    return {name: value}
