"""Every check of an argument of an operation.

All of them read shapes, dtypes, devices and host scalars only; the values of an array are read by
``scale_values``, and only on the CPU. Texts are built by ``fail``.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any, NoReturn

from . import _array, _surrogate, _unreadable
from ._errors import choice, fail, is_int
from ._types import Grid, Packed, arrays_of

__all__ = ["choice", "fail", "is_int"]

MAX_ELEMENTS = 2**35
MIN_SCALE = 2.0**-100
WORD = 2**32
REQUIRED = ("scale", "grad", "differences")  # arrays that no operation goes without


# not frozen: that would make these, of which every call needs one, four times as slow
@dataclass(slots=True)
class View:
    """A checked weight as [rows, cols], its scales as [scale_rows, scale_cols]; never changed."""

    kind: str  # torch or numpy
    device: str  # device type: cpu, cuda, ...
    shape: tuple[int, ...]
    rows: int
    cols: int
    scale_rows: int = 1
    scale_cols: int = 1

    @property
    def sizes(self) -> tuple[int, int, int, int]:
        """As every launcher takes them."""
        return self.rows, self.cols, self.scale_rows, self.scale_cols


@dataclass(slots=True)
class Draw:
    """Checked coordinates of the noise of one tensor; seed and step are ints or device scalars."""

    surrogate: str
    noise: str
    seed: Any
    step: Any
    tensor: int
    first_probe: int
    probes: int
    offset: int
    row_pitch: int

    @property
    def on_host(self) -> bool:
        """Whether seed and step are host integers."""
        return isinstance(self.seed, int) and isinstance(self.step, int)

    def at(self, seed: Any, step: Any) -> Draw:
        """The same coordinates at another seed and step."""
        return Draw(
            self.surrogate, self.noise, seed, step, self.tensor, self.first_probe, self.probes,
            self.offset, self.row_pitch,
        )  # fmt: skip


def grid(op: str, value: object) -> None:
    if not isinstance(value, Grid):
        fail(op, "grid", f"is {value!r}", "a fogzo_kernels.Grid", TypeError)


def dtype(op: str, argument: str, array: Any, *names: str) -> None:
    got = _array.dtype_name(array)
    if got not in names:
        fail(op, argument, f"has dtype {got}", " or ".join(names), TypeError)


def shape(op: str, argument: str, array: Any, expected: tuple[int, ...], why: str = "") -> None:
    if tuple(array.shape) != expected:
        fail(op, argument, f"has shape {tuple(array.shape)}", f"{expected}{why}")


def view(op: str, name: str, array: Any, **others: Any) -> View:
    """An array of at least one dimension as [shape[0], rest] (1-D: [1, n]).

    ``others`` (each an array or None) must be of its kind and on its device.
    """
    kind, device = _place(op, name, array, others)
    return _view(tuple(array.shape), kind, device) or _refuse_view(op, name, array.shape)


def _place(op: str, name: str, array: Any, others: dict[str, Any]) -> tuple[str, str]:
    """Kind and device type that an array shares with the others (optional ones may be None)."""
    kinds = _array.KINDS  # of types met before; for another, common_kind below
    kind = kinds.get(type(array))
    given = {name: other for name, other in others.items() if other is not None or name in REQUIRED}
    for other in given.values():
        if kinds.get(type(other)) != kind:
            kind = None
    if kind is None:
        kind = _array.common_kind(op, **{name: array}, **given)  # says what differs
    if kind != "torch":
        return kind, "cpu"
    device = array.device
    for argument, other in {name: array, **given}.items():
        if not _array.is_strided(other):
            _unreadable.strided(op, argument, other)
        if other.device != device:
            fail(op, argument, f"is on {other.device}", f"{device}, where {name} is")
    return kind, device.type


def shape_view(op: str, array_shape: Sequence[int], kind: str, device: str) -> View:
    """The same for a shape without an array."""
    dims = _dims(op, "shape", array_shape)
    return _view(dims, kind, device) or _refuse_view(op, "shape", dims)


def _dims(op: str, argument: str, value: Any) -> tuple[int, ...]:
    text = "a tuple of ints >= 0"
    if not isinstance(value, (list, tuple)):
        fail(op, argument, f"is {value!r}", text, TypeError)
    return tuple(integer(op, argument, n, 0, 2**63, text) for n in value)


@lru_cache(maxsize=4096)
def _view(dims: tuple[int, ...], kind: str, device: str) -> View | None:
    """None for a shape that has no view."""
    if not dims or max(math.prod(dims), *dims) > MAX_ELEMENTS:
        return None
    rows, cols = (1, dims[0]) if len(dims) == 1 else (dims[0], math.prod(dims[1:]))
    return View(kind, device, dims, rows, cols)


def _refuse_view(op: str, name: str, dims: Sequence[int]) -> NoReturn:
    if len(dims) == 0:
        fail(op, name, "has shape ()", "at least one dimension")
    if math.prod(dims) == 0:
        fail(op, name, f"has shape {tuple(dims)}", "dimensions of at most 2^35")
    fail(op, name, f"has {math.prod(dims)} elements", "at most 2^35")


def weight(op: str, w: Any, scale: Any, *, name: str = "w", **others: Any) -> View:
    """A float32 weight (or gradient) and its scale: (), [N, 1] or [N, G, 1], G dividing cols."""
    others["scale"] = scale
    kind, device = _place(op, name, w, others)
    dtype(op, name, w, "float32")
    dtype(op, "scale", scale, "float32")
    v = _scaled_view(tuple(w.shape), kind, device, tuple(scale.shape))
    return v or with_scale(op, view(op, name, w), scale, name)


def with_scale(op: str, v: View, scale: Any, name: str) -> View:
    dtype(op, "scale", scale, "float32")
    got = tuple(scale.shape)
    scaled = _scaled_view(v.shape, v.kind, v.device, got)
    if scaled is None:
        expected = f"(), ({v.rows}, 1) or ({v.rows}, G, 1) with G dividing {v.cols}"
        fail(op, "scale", f"has shape {got}", f"{expected} to match {name} {v.shape}")
    return scaled


@lru_cache(maxsize=4096)
def _scaled_view(
    dims: tuple[int, ...], kind: str, device: str, scale: tuple[int, ...]
) -> View | None:
    """None for a scale whose shape does not fit."""
    v = _view(dims, kind, device)
    if v is None or scale == ():
        return v
    if scale == (v.rows, 1):
        return replace(v, scale_rows=v.rows)
    groups = scale[1] if len(scale) == 3 and scale[0] == v.rows and scale[2] == 1 else 0
    if groups and v.cols % groups == 0:
        return replace(v, scale_rows=v.rows, scale_cols=groups)
    return None


def scale_values(op: str, array: Any, argument: str = "scale") -> None:
    """Refuse a CPU scale that is not finite, or under 2^-100 (its inverse would overflow)."""
    if math.prod(array.shape) == 0:
        return
    low, high = float(array.min()), float(array.max())
    if not (low >= MIN_SCALE and high < math.inf):
        bad = high if low >= MIN_SCALE else low
        fail(op, argument, f"has the value {bad}", "finite numbers >= 2^-100")


def integer(op: str, argument: str, value: Any, low: int, high: int, text: str) -> int:
    """A host integer low <= value < high (anything with __index__, bools excepted)."""
    if type(value) is int and low <= value < high:
        return value
    try:
        number = operator.index(value)
    except TypeError:
        fail(op, argument, f"is {value!r}", text, TypeError)
    if isinstance(value, bool) or not low <= number < high:
        fail(op, argument, f"is {value!r}", text)
    return number


def number(op: str, argument: str, value: Any, low: float, high: float, text: str) -> float:
    """A host float with low <= value <= high; NaN passes only where high is NaN."""
    if type(value) is float and low <= value <= high:
        return value
    try:
        result = float("no number" if isinstance(value, (str, bytes)) else value)
    except (TypeError, ValueError):
        fail(op, argument, f"is {value!r}", text, TypeError)
    if not (low <= result <= high or (math.isnan(high) and not result < low)):
        fail(op, argument, f"is {value!r}", text)
    return result


def _device_scalar(op: str, argument: str, value: Any, name: str, v: View) -> tuple[Any, bool]:
    """A 0-dim array on the device of the call (True), or what a host scalar or array says."""
    if _array.kind(value) is None:
        return value, False
    dtype(op, argument, value, name)
    if value.shape != ():
        shape(op, argument, value, ())
    device = _array.device_type(value)
    if device == "cpu":
        return value.item(), False
    if device != v.device:
        fail(op, argument, f"is on {value.device}", f"cpu or {v.device}")
    return value, True


def _integer(op: str, argument: str, value: Any, low: int, high: int, text: str, v: View) -> Any:
    """A host integer, or a 0-dim int64 device array as it is."""
    if type(value) is int and low <= value < high:
        return value
    value, on_device = _device_scalar(op, argument, value, "int64", v)
    return value if on_device else integer(op, argument, value, low, high, text)


def _number(op: str, argument: str, value: Any, name: str, high: float, text: str, v: View) -> Any:
    """A host float from 0 to high (NaN: to inf and NaN), or a 0-dim device array as it is."""
    value, on_device = _device_scalar(op, argument, value, name, v)
    return value if on_device else number(op, argument, value, 0.0, high, text)


def scalars(
    op: str, v: View, seed: Any, step: Any, gamma: Any = 0.0, norm: Any = 0.0
) -> tuple[Any, Any, Any, Any]:
    """Checked seed, step, gamma and norm, each a host number or a 0-dim array on v's device."""
    if _array.is_plain(norm, "float32"):
        norm = norm.item()
    if (
        (type(seed) is type(step) is int and type(gamma) is type(norm) is float)
        and (0 <= seed < 2**64 and 0 <= step < WORD and 0.0 <= gamma <= 1.0 and norm >= 0.0)
    ):  # fmt: skip
        return seed, step, gamma, norm  # as most calls give them; what follows knows the rest
    text = "an int of 64 bits or a 0-dim int64 array"
    seed = _integer(op, "seed", seed, -(2**63), 2**64, text, v)
    if type(seed) is int:
        seed %= 2**64
    step = _integer(op, "step", step, 0, WORD, "an int in 0..2^32-1 or a 0-dim int64 array", v)
    gamma = _number(op, "gamma", gamma, "float64", 1.0, "a float in [0, 1]", v)
    text = "a number >= 0 or a 0-dim float32 array"
    norm = _number(op, "norm", norm, "float32", math.nan, text, v)
    return seed, step, gamma, norm


def draw(
    op: str,
    v: View,
    grid: Grid | None,
    surrogate: str,
    noise: str,
    probes: Any,
    first_probe: Any,
    tensor: Any,
    offset: Any = 0,
    row_pitch: Any = None,
) -> Draw:
    """The coordinates of a tensor's noise but for seed and step, which are 0 here."""
    _surrogate.check(op, surrogate, noise, grid)
    first_probe = integer(op, "first_probe", first_probe, 0, WORD, "an int in 0..2^32-1")
    probes = integer(op, "probes", probes, 1, WORD - first_probe + 1, "an int >= 1")
    tensor = integer(op, "tensor", tensor, 0, WORD - 1, "an int in 0..2^32-2")
    offset = integer(op, "offset", offset, 0, MAX_ELEMENTS + 1, "an int in 0..2^35")
    pitch = v.cols
    if row_pitch is not None or offset:
        pitch = pitch if row_pitch is None else row_pitch
        text = f"an int in {v.cols}..2^35"
        pitch = integer(op, "row_pitch", pitch, v.cols, MAX_ELEMENTS + 1, text)
        if v.rows * v.cols and offset + (v.rows - 1) * pitch + v.cols > MAX_ELEMENTS:
            got = f"is {offset} with row_pitch {pitch} and {v.rows} rows of {v.cols}"
            fail(op, "offset", got, "element numbers below 2^35")
    return Draw(surrogate, noise, 0, 0, tensor, first_probe, probes, offset, pitch)


def sequence(op: str, argument: str, value: Any, length: int | None, like: str = "") -> list[Any]:
    """A list or tuple, of ``length`` where given."""
    if not isinstance(value, (list, tuple)):
        fail(op, argument, f"is a {type(value).__name__}", "a list or tuple", TypeError)
    if length is not None and len(value) != length:
        fail(op, argument, f"has length {len(value)}", f"{length} to match {like}")
    if not value:
        fail(op, argument, "is empty", "at least one entry")
    return list(value)


def each(op: str, argument: str, value: Any, length: int, like: str) -> list[Any]:
    """One value for all, or a list with one for each."""
    if isinstance(value, (list, tuple)):
        return sequence(op, argument, value, length, like)
    return [value] * length


def finite(op: str, argument: str, scale: Any) -> None:
    """Refuse a weight whose scale (a CPU array, at least 2^-100) came out infinite or NaN."""
    if not float(scale.max()) < math.inf:  # the maximum of a NaN and others is NaN
        fail(op, argument, "has values that are not finite", "finite numbers")


def packed(op: str, value: Any, grid: Grid | None = None, argument: str = "packed") -> None:
    """A Packed whose data matches its own width and shape, and the grid's width where given."""
    if not isinstance(value, Packed):
        fail(op, argument, f"is a {type(value).__name__}", "a fogzo_kernels.Packed", TypeError)
    dtype_array(op, f"{argument}.data", value.data, "uint8")
    if not is_int(value.bits) or value.bits not in (1, 2, 4, 8):
        fail(op, f"{argument}.bits", f"is {value.bits!r}", "1, 2, 4 or 8")
    dims = _dims(op, f"{argument}.shape", value.shape)
    if not dims:
        fail(op, f"{argument}.shape", "is ()", "at least one dimension")
    shape(op, f"{argument}.data", value.data, packed_shape(dims, value.bits))
    if grid is not None and value.bits != grid.storage_bits:
        fail(op, f"{argument}.bits", f"is {value.bits}", f"{grid.storage_bits} for {grid}")


def result_size(op: str, argument: str, got: str, dims: tuple[int, ...]) -> None:
    """Refuse a result whose bytes no 64-bit size counts."""
    if math.prod(dims) >= 2**60:
        fail(op, argument, got, f"a result of fewer than 2^60 elements, not {dims}")


def packed_shape(dims: tuple[int, ...], bits: int) -> tuple[int, ...]:
    """Shape of the bytes that hold codes of this shape."""
    return (*dims[:-1], -(-dims[-1] * bits // 8))


def flips(op: str, value: Any, argument: str = "codes") -> None:
    """A Flips of a 2-D weight, but for the values in it."""
    for name, dtype_name in (
        ("base", "uint8"),
        ("index", "int64"),
        ("code", "uint8"),
        ("count", "int64"),
    ):
        dtype_array(op, f"{argument}.{name}", getattr(value, name), dtype_name)
    (name, base), *others = arrays_of(argument, value).items()
    _place(op, name, base, dict(others))
    if len(value.base.shape) != 2:
        fail(op, f"{argument}.base", f"has shape {tuple(value.base.shape)}", "(N, K)")
    sides = value.count.shape[0] if len(value.count.shape) == 1 else -1
    if len(value.index.shape) != 2 or value.index.shape[0] != sides:
        fail(op, f"{argument}.index", f"has shape {tuple(value.index.shape)}", "(sides, capacity)")
    shape(op, f"{argument}.code", value.code, tuple(value.index.shape))


def flip_values(op: str, value: Any, argument: str = "codes") -> None:
    """Refuse counts over the room, and element numbers of the CPU's that are not ascending."""
    size, capacity = math.prod(value.base.shape), value.index.shape[1]
    for side in range(value.count.shape[0]):
        count = int(value.count[side])
        if not 0 <= count <= capacity:
            fail(op, f"{argument}.count", f"has the value {count}", f"0..{capacity}")
        used = value.index[side, :count]
        if count and not (int(used.min()) >= 0 and int(used.max()) < size):
            fail(op, f"{argument}.index", "has an element number out of range", f"0..{size - 1}")
        if not bool((used[1:] > used[:-1]).all()):
            expected = "element numbers that ascend, each once"
            fail(op, f"{argument}.index", f"is out of order on side {side}", expected)


def dtype_array(op: str, argument: str, array: Any, *names: str) -> None:
    """An array of one of these dtypes."""
    _array.common_kind(op, **{argument: array})
    dtype(op, argument, array, *names)
