"""Random good arguments of the bindings, and outputs whose surroundings are watched."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

import fogzo_kernels as fk

SURROGATES = ("identity", "clipped", "hardtanh", "tanh", "approx_sign", "trust")
NOISES = ("published", "rademacher")
FORMS = ("values", "codes", "packed")
GUARD = 64
TABLE = np.arctanh((2 * np.arange(32768) + 1) / 65536).astype(np.float32)
# What all tensors of a call have in common.
SHARED = ("noise", "seed", "step", "probes", "first_probe", "gamma", "norm", "form", "sides")
WIDTHS = (1, 2, 3, 7, 8, 9, 31, 127, 128, 129, 1000, 1023, 1024, 1025, 2049, 5000)


class Guarded:
    """An output array with watched bytes on both sides, all 0xA5 before a call."""

    def __init__(self, shape: tuple[int, ...], dtype: type) -> None:
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        self.raw = np.full(size + 2 * GUARD, 0xA5, np.uint8)
        self.array: Any = self.raw[GUARD : GUARD + size].view(dtype).reshape(shape)
        self.address = self.raw.ctypes.data + GUARD

    def intact(self) -> bool:
        return bool((self.raw[:GUARD] == 0xA5).all() and (self.raw[-GUARD:] == 0xA5).all())

    def untouched(self) -> bool:
        return bool((self.raw == 0xA5).all())


class Case:
    """Random good arguments of every operation, by name."""

    def __init__(self, rng: random.Random, may_be_empty: bool = True) -> None:
        self.rng = rng
        self.parts = [self]  # the cases of a call for many tensors
        self.m = 1  # rows of x, of a product
        data = np.random.default_rng(rng.getrandbits(64))
        self.rows = rng.choice((1, 1, 2, 3, 5, 17))
        self.cols = rng.choice(WIDTHS)
        if may_be_empty and rng.random() < 0.04:
            self.rows, self.cols = rng.choice(((0, self.cols), (self.rows, 0), (0, 0)))
        groups = [g for g in (2, 3, 4, 8) if self.cols and self.cols % g == 0]
        self.scale_rows, self.scale_cols = rng.choice(
            [(1, 1), (self.rows, 1), *((self.rows, g) for g in groups)]
        )
        kind = rng.choice(("sign", "ternary", "mid-tread", "mid-rise"))
        bits = rng.randint(2, 8) if kind.startswith("mid") else None
        self.grid = fk.Grid(kind, bits)
        self.noise = rng.randrange(2)
        self.surrogate = rng.choice((2, 3, 4) if kind == "sign" else (0, 1, 5))
        self.shape = (self.rows, self.cols)
        self.w = self.values(data, self.shape)
        self.grad = self.values(data, self.shape)
        scales = 10.0 ** data.uniform(-6, 6, (self.scale_rows, self.scale_cols))
        self.scale = scales.astype(np.float32)
        if rng.random() < 0.05:
            self.scale[:] = rng.choice((2.0**-100, 2.0**-99, 3.0e38))
        with np.errstate(over="ignore"):
            self.w *= self.scale.repeat(self.cols // self.scale_cols, axis=1)
        self.row_pitch = rng.choice((self.cols, self.cols, self.cols + rng.randrange(3000)))
        end = 2**35 - max(self.rows - 1, 0) * self.row_pitch - self.cols
        self.offset = rng.choice((0, 1, 1023, 1024, 16383, rng.randrange(end), end))
        self.seed = rng.getrandbits(64)
        self.step = rng.choice((0, 1, 2**32 - 1, rng.getrandbits(32)))
        self.tensor = rng.choice((0, 1, 2**32 - 2, rng.randrange(2**32 - 1)))
        self.probes = rng.choice((1, 1, 2, 3, 9))
        self.first_probe = rng.choice((0, 1, 2**32 - 9))
        self.gamma = rng.choice((0.0, 1.0, 1e-12, 1 - 1e-9, rng.random()))
        self.norm = rng.choice((0.0, 1.0, 1e-31, 2.0**-100, 1e30, float("inf"), float("nan")))
        self.form = rng.randrange(3)
        self.rounded = self.form != 0 or rng.random() < 0.5
        self.sides = rng.choice((1, 2))
        self.differences = self.values(data, (self.probes,))
        self.threads = rng.choice((1, 1, 2, 4))
        self.codes: Any = None
        self.bytes: Any = None
        self.kept: list[Any] = []  # what addresses point to besides

    def join(self, other: Case) -> None:
        """Take another case into one call, which draws and mixes for both alike."""
        for name in (*SHARED, "differences"):
            setattr(other, name, getattr(self, name))
        self.parts.append(other)

    @property
    def empty(self) -> bool:
        return any(part.m * part.rows * part.cols == 0 for part in self.parts)

    def values(self, data: np.random.Generator, shape: tuple[int, ...]) -> Any:
        array = data.normal(0, 2, shape).astype(np.float32)
        if self.rng.random() < 0.3:  # ties, zeros and what is no number
            odd = np.array(
                (0.0, -0.0, 0.5, -0.5, 1.0, 1.5, 2.5, 1e-45, 3e38, np.inf, -np.inf, np.nan),
                np.float32,
            )
            where = data.random(shape) < 0.1
            array[where] = data.choice(odd, int(where.sum()))
        return array

    def public_scale(self) -> Any:
        if self.scale.size == 1:
            return self.scale.reshape(())
        if self.scale_cols == 1:
            return self.scale
        return self.scale.reshape(self.scale_rows, self.scale_cols, 1)

    def draw(self, probe_name: str = "first_probe") -> dict[str, Any]:
        return {
            "seed": self.seed,
            "step": self.step,
            "tensor": self.tensor,
            probe_name: self.first_probe,
            "noise": NOISES[self.noise],
            "offset": self.offset,
            "row_pitch": self.row_pitch,
        }


@dataclass(frozen=True)
class Near:
    """A float64 sum rounded to float32; another order of summation moves it by `error` at most."""

    value: Any
    error: Any


# Each returns the binding's arguments by name, its outputs, and the reference's results: None where
# nothing is written.
Prepared = tuple[dict[str, Any], list[Guarded], Callable[[], list[Any]]]


def sizes(c: Case) -> dict[str, int]:
    return {
        "rows": c.rows,
        "cols": c.cols,
        "scale_rows": c.scale_rows,
        "scale_cols": c.scale_cols,
    }


def rounding(c: Case, out: Guarded) -> dict[str, int]:
    """Arguments of the bindings that round w to the grid: quantize, fake_quantize."""
    return {
        "w": c.w.ctypes.data,
        "scale": c.scale.ctypes.data,
        "out": out.address,
        **sizes(c),
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "threads": c.threads,
    }
