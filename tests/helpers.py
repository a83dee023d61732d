"""What the tests of fogzo_kernels share: exact comparison, awkward inputs, guarded outputs."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

import fogzo_kernels as fk

GRIDS = (
    fk.Grid("sign"),
    fk.Grid("ternary"),
    *(fk.Grid(kind, bits) for kind in ("mid-tread", "mid-rise") for bits in range(2, 9)),
)
SURROGATES = ("identity", "clipped", "hardtanh", "tanh", "approx_sign", "trust")
NOISES = ("published", "rademacher")
PAIRS = tuple(
    (grid, surrogate, noise)
    for grid in GRIDS
    for surrogate in SURROGATES
    for noise in NOISES
    if surrogate == "trust" or (surrogate in SURROGATES[2:5]) == (grid.kind == "sign")
    if not (grid.kind == "sign" and surrogate == "trust" and noise == "rademacher")
)
# One element, a run, a tile and a Philox block and their neighbours, a convolution, nothing at all.
VIEWS: tuple[tuple[tuple[int, ...], int, int | None], ...] = (
    ((1,), 0, None),
    ((7,), 1023, None),
    ((3, 127), 0, None),
    ((5, 129), 1000, 1024),
    ((4, 2, 3, 3), 2**33 + 5, 40),
    ((2, 1031), 16380, 5000),
    ((1, 17), 2**35 - 17, None),
    ((0, 5), 0, None),
    ((4, 0), 3, None),
)
WIDE = ((2, 16411), 12345, 16500)  # past the 16,384 elements of a rademacher tile
ODD = np.array(
    (0.0, -0.0, 0.5, -0.5, 1.0, -1.0, 1.5, -1.5, 2.5, -2.5, 127.5, -128.0, 1e-45, -1e-45, 1e-39,
     3e38, -3e38, np.inf, -np.inf, np.nan),
    np.float32,
)  # fmt: skip


def pair_id(pair: Any) -> str:
    grid, surrogate, noise = pair
    return f"{grid.kind}{grid.bits or ''}-{surrogate}-{noise}"


def grid_id(grid: Any) -> str:
    return f"{grid.kind}{grid.bits or ''}"


def awkward(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 2.0) -> Any:
    """Normal float32 values, a tenth of them ties, zeros, subnormals, infinities and NaNs."""
    array = rng.normal(0, spread, shape).astype(np.float32)
    where = rng.random(shape) < 0.1
    array[where] = rng.choice(ODD, int(where.sum()))
    return array


def finite(rng: np.random.Generator, shape: tuple[int, ...], spread: float = 1.0) -> Any:
    return rng.normal(0, spread, shape).astype(np.float32)


def scales(rng: np.random.Generator, shape: tuple[int, ...], granularity: str = "any") -> Any:
    """A scale of shape (), [N, 1] or [N, G, 1]; powers of two among them keep ties ties."""
    rows, cols = (1, shape[0]) if len(shape) == 1 else (shape[0], math.prod(shape[1:]))
    groups = [g for g in (2, 3, 9, 43) if cols and cols % g == 0]
    choices = ["tensor", "channel", *(["group"] if groups else [])]
    if granularity == "any":
        granularity = str(rng.choice(choices))
    dims: tuple[int, ...] = {"tensor": (), "channel": (rows, 1)}.get(granularity, ())
    if granularity == "group":
        dims = (rows, int(rng.choice(groups)), 1)
    return np.asarray(2.0 ** rng.integers(-6, 4, dims) * rng.choice((1, 1, 1.37), dims), np.float32)


def assert_same(got: Any, want: Any, what: str = "result") -> None:
    """Equal dtype, shape and bits (any NaN is any NaN), or the first coordinate that differs."""
    got, want = as_numpy(got), as_numpy(want)
    assert got.dtype == want.dtype, f"{what} has dtype {got.dtype}, expected {want.dtype}"
    assert got.shape == want.shape, f"{what} has shape {got.shape}, expected {want.shape}"
    a, b = np.ascontiguousarray(got), np.ascontiguousarray(want)
    unsigned = {4: np.uint32, 8: np.uint64}.get(a.itemsize)
    if a.dtype.kind == "f" and unsigned is not None:
        differ = (a.view(unsigned) != b.view(unsigned)) & ~(np.isnan(a) & np.isnan(b))
    else:
        differ = a != b
    if differ.any():
        at = tuple(int(i) for i in np.argwhere(differ)[0]) if a.shape else ()
        raise AssertionError(
            f"{what} differs in {int(differ.sum())} of {a.size} elements, first at {at}: "
            f"got {a[at]!r}, expected {b[at]!r}"
        )


def as_numpy(array: Any) -> Any:
    return array.detach().cpu().numpy() if isinstance(array, torch.Tensor) else np.asarray(array)


def as_kind(array: Any, kind: str) -> Any:
    """A NumPy array as the named kind, sharing memory."""
    if array is None or kind == "numpy":
        return array
    return torch.from_numpy(np.ascontiguousarray(array).reshape(array.shape))


class Guarded:
    """An output filled with NaN (floats) or 0xA5, watched bytes on both sides of it."""

    GUARD = 64

    def __init__(self, shape: tuple[int, ...], dtype: Any, kind: str = "numpy") -> None:
        size = math.prod(shape) * np.dtype(dtype).itemsize
        self.raw = np.full(size + 2 * self.GUARD, 0xA5, np.uint8)
        inner = self.raw[self.GUARD : self.GUARD + size].view(dtype).reshape(shape)
        if np.dtype(dtype).kind == "f":
            inner[...] = np.nan
        self.array = as_kind(inner, kind) if size else as_kind(np.empty(shape, dtype), kind)

    def check(self) -> None:
        for side in (self.raw[: self.GUARD], self.raw[-self.GUARD :]):
            assert (side == 0xA5).all(), "a byte beside the output was written"


def taken(call: Any, *args: Any, **named: Any) -> Any:
    """What the call gives; the test is skipped where the named backend has no such kernel."""
    try:
        return call(*args, **named)
    except RuntimeError as error:
        if "no backend takes this call" not in str(error):
            raise
        pytest.skip(str(error))


def refused(call: Any, *args: Any, **named: Any) -> bool:
    """Make the call; whether the named backend has no kernel for it."""
    try:
        call(*args, **named)
    except RuntimeError as error:
        if "no backend takes this call" not in str(error):
            raise
        return True
    return False


def ulps(got: Any, exact: Any) -> Any:
    """Distance of float32 values from float64 ones, in units of the last place of the latter."""
    exact = np.asarray(exact, np.float64)
    spacing = np.spacing(np.abs(exact).astype(np.float32)).astype(np.float64)
    return np.abs(as_numpy(got).astype(np.float64) - exact) / spacing


def multiply(x: Any, values: Any, layer: Any) -> Any:
    """x @ values.T + bias as both sides of a probe multiply: by codes where a kernel takes them."""
    if not fk.has_kernel("probe_matmul"):
        return torch.nn.functional.linear(x, values, layer.bias)
    codes = fk.quantize(values, layer.scale, layer.grid)  # values of the grid: exactly theirs
    return fk.probe_matmul(x, codes, layer.scale, layer.grid, layer.bias)[0]


def assert_another_backend_refuses(call: Any) -> None:
    """What a call keeps for the next serves its own backend alone."""
    absent = [name for name in ("triton", "cuda") if fk.why_not(name) is not None]
    if not absent:
        pytest.skip("no backend is refused here")
    call()
    with fk.use_backend(absent[0]):
        assert refused(call)
    call()
