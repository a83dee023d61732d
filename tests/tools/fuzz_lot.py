"""Random choices for fuzz_ops.py, and arrays of NumPy or torch in memory of any kind."""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np
import torch

import fogzo_kernels as fk

SHAPES = ((1,), (9,), (3, 5), (2, 128), (4, 129), (7, 33), (2, 3, 4), (3, 2, 2, 5), (0, 4), (4, 0))
GRIDS = (fk.Grid("sign"), fk.Grid("ternary"), fk.Grid("mid-rise", 2), fk.Grid("mid-tread", 5))
PLAIN, STEPS, TURNED, BACK, ODD, FROZEN = "plain", "steps", "turned", "back", "odd", "frozen"
LAYOUTS = (PLAIN, PLAIN, PLAIN, STEPS, TURNED, BACK, ODD, FROZEN)
GUARD, FILL = 64, 0xA5


class Lot:
    """Random choices, and arrays of one kind in random memory."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.data = np.random.default_rng(rng.getrandbits(64))
        self.torch = rng.random() < 0.5
        self.shape = rng.choice(SHAPES)
        self.rows = 1 if len(self.shape) == 1 else self.shape[0]
        self.grid = rng.choice(GRIDS)
        self.broken = False
        self.limit = 0.0  # by how much a result may be off; 0: not a bit
        self.inputs: list[tuple[Any, Any]] = []  # array and what it held
        self.memory: list[tuple[Any, Any]] = []  # all bytes of an output's memory, and before

    def numbers(self, shape: tuple[int, ...]) -> Any:
        return self.data.normal(0, 1, shape).astype(np.float32)

    def take(self, numbers: Any) -> Any:
        """An input: any layout; now and then of a type that is refused."""
        numbers = np.asarray(numbers)
        if self.rng.random() < 0.04:
            self.broken, numbers = True, numbers.astype(np.float64)
        array = self.place(numbers, self.rng.choice(LAYOUTS))
        self.inputs.append((array, numbers.copy()))
        return array

    def place(self, numbers: Any, layout: str) -> Any:
        """These numbers in memory of a layout; each kind of array has some of its own."""
        size = numbers.nbytes
        if layout == STEPS and numbers.shape:
            view = np.zeros(tuple(2 * n for n in numbers.shape), numbers.dtype)
            view = view[tuple(slice(1, None, 2) for _ in numbers.shape)]
        elif layout == TURNED:
            view = np.zeros(numbers.shape[::-1], numbers.dtype).T
        elif layout == BACK and not self.torch and numbers.shape:
            view = np.flip(np.zeros(numbers.shape, numbers.dtype))
        elif layout == ODD and size:
            raw = bytearray(size + 1)
            if self.torch:
                kind = torch.from_numpy(np.empty(0, numbers.dtype)).dtype
                tensor = torch.frombuffer(raw, dtype=kind, offset=1).reshape(numbers.shape)
                return tensor.copy_(torch.from_numpy(numbers))
            view = np.frombuffer(raw, numbers.dtype, offset=1).reshape(numbers.shape)
        else:
            view = np.zeros(numbers.shape, numbers.dtype)
        view[...] = numbers
        if layout == FROZEN and not self.torch:
            view.flags.writeable = False
        return torch.from_numpy(view) if self.torch else view

    def output(self, shape: tuple[int, ...], dtype: type) -> Any:
        """None, an output with watched bytes around it, or one at an odd address."""
        draw, kind = self.rng.random(), np.dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if draw < 0.4 or not size:
            return None
        shift = GUARD + 1 if draw < 0.5 and kind.itemsize > 1 else GUARD
        self.broken |= shift != GUARD
        raw = np.full(size + 2 * GUARD + 1, FILL, np.uint8)
        self.memory.append((raw, slice(shift, shift + size)))
        if not self.torch:
            return raw[shift : shift + size].view(kind).reshape(shape)
        of = getattr(torch, kind.name)
        flat = torch.frombuffer(raw.data, dtype=of, offset=shift, count=math.prod(shape))
        return flat.reshape(shape)
