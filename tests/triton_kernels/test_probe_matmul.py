"""Triton's probe_matmul in the interpreter: every kind of x and codes against float64.

The interpreter multiplies bfloat16 and float8 numbers wrongly, so there both operands are float32,
which holds them; and it cuts float32 to bfloat16 instead of rounding.
"""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import GRIDS, finite, grid_id, scales

import fogzo_kernels as fk

# One of everything; a tile and its neighbours; padding; K split; more rows than unpacking takes.
SHAPES = (
    (1, 1, 1),
    (5, 4, 86),
    (3, 17, 129),
    (8, 16, 256),
    (0, 3, 8),
    (3, 0, 8),
    (2, 3, 0),
    (130, 5, 64),
)
FLOATS = {"float32": 0.0, "float16": 2.0**-11, "bfloat16": 2.0**-7}


def packed(codes, bits):
    with fk.use_backend("reference"):
        return fk.pack(codes, bits)


def inputs(rng, dtype, shape):
    """x and x_scale."""
    if dtype == "int8":
        x = torch.from_numpy(rng.integers(-128, 128, shape).astype(np.int8))
        return x, torch.from_numpy(np.exp(finite(rng, shape[:-1])))
    x = torch.from_numpy(finite(rng, shape))
    if dtype == "float8_e4m3fn":
        return x.to(torch.float8_e4m3fn), torch.from_numpy(np.exp(finite(rng, shape[:-1])))
    return x.to(getattr(torch, dtype)), None


def check(got, x, codes, scale, grid, bias=None, x_scale=None):
    """|error| <= 2 (K + 6) 2^-24 (sum |x| |w| + |bias|), as on every backend, and y's rounding."""
    low, _, step, _ = oracle.levels(grid.kind, grid.bits)
    n, k = codes.shape[-2:]
    w = oracle.spread(scale.numpy(), n, k).astype(np.float64) * (
        low + step * codes.double().numpy()
    )
    wide = x.double() if x_scale is None else x.double() * x_scale.double()[..., None]
    wide, offset = wide.numpy(), 0.0 if bias is None else bias.double().numpy()
    want = wide @ np.swapaxes(w, -1, -2) + offset
    most = abs(wide) @ abs(np.swapaxes(w, -1, -2)) + abs(offset)
    want, most = (a if a.ndim == 3 else a[None] for a in (want, most))
    assert got.shape == want.shape
    rounding = FLOATS.get(str(got.dtype).removeprefix("torch."), 0.0)
    limit = 2 * (k + 6) * 2.0**-24 * most + rounding * abs(want) + 2.0**-24 * bool(rounding)
    error = abs(got.double().numpy() - want)
    assert (error <= limit).all(), (
        f"{np.nanmax(error / limit)} of the bound, {x.dtype}, {scale.shape}"
    )


@pytest.mark.parametrize("number", range(len(GRIDS)), ids=lambda number: grid_id(GRIDS[number]))
def test_codes_and_packed_equal_float64(backend, number):
    """All shapes, sides and dtypes turn over the grids; scales of every granularity."""
    rng, grid = np.random.default_rng(number), GRIDS[number]
    dtypes = ("float32", "int8", "bfloat16", "float16")
    for at, (m, n, k) in enumerate(SHAPES):
        for sides, x_sides in ((None, 1), (2, 1), (2, 2), (None, 3)):
            shape = (n, k) if sides is None else (sides, n, k)
            codes = torch.from_numpy(rng.integers(0, grid.levels, shape).astype(np.uint8))
            scale = torch.from_numpy(scales(rng, (n, k)))
            dtype = dtypes[(at + number + x_sides) % 4]
            x, x_scale = inputs(rng, dtype, (m, k) if x_sides == 1 else (x_sides, m, k))
            bias = torch.from_numpy(finite(rng, (n,))) if k % 2 else None
            given = codes if at % 2 else packed(codes, grid.code_bits)
            out = torch.full((sides or x_sides, m, n), float("nan"))
            out = out.to(torch.float32 if x_scale is not None else x.dtype)
            got = fk.probe_matmul(x, given, scale, grid, bias, x_scale=x_scale, out=out)
            assert got is out
            check(got, x, codes, scale, grid, bias, x_scale)


@pytest.mark.parametrize("size", ["few", "many", "group"])
@pytest.mark.parametrize("dtype", ["float32", "int8", "bfloat16", "float16", "float8_e4m3fn"])
def test_every_dtype_with_few_rows_with_many_and_with_groups(backend, dtype, size):
    """K of whole blocks, where few rows unpack the codes in the product."""
    rows, granularity = 130 if size == "many" else 8, "group" if size == "group" else "channel"
    rng = np.random.default_rng(rows)
    scale = torch.from_numpy(scales(rng, (18, 64), granularity))
    for grid in (GRIDS[0], fk.Grid("mid-rise", 2), fk.Grid("mid-tread", 4)):
        codes = torch.from_numpy(rng.integers(0, grid.levels, (2, 18, 64)).astype(np.uint8))
        for given in (packed(codes, grid.code_bits), codes):
            x, x_scale = inputs(rng, dtype, (rows, 64))
            got = fk.probe_matmul(x, given, scale, grid, x_scale=x_scale)
            check(got, x, codes, scale, grid, None, x_scale)


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("grid", [GRIDS[0], fk.Grid("mid-rise", 8)], ids=grid_id)
def test_flips_equal_their_codes(backend, grid, granularity):
    rng = np.random.default_rng(4)
    n, k = 40, 86
    w, g = (torch.from_numpy(finite(rng, (n, k))) for _ in range(2))
    named = {"seed": 1, "step": 0, "tensor": 0, "probes": 2, "gamma": 0.05, "norm": 9.0}
    with fk.use_backend("reference"):
        a = torch.tensor(0.5)
        codes = fk.perturb_quantize(w, g, a, grid, form="codes", **named)
        flips = fk.perturb_quantize(w, g, a, grid, form="flips", **named)
    assert flips.count.min() > 16  # more than are taken at a time
    scale = torch.from_numpy(scales(rng, (n, k), granularity))
    for dtype, x_sides in (("float32", 1), ("int8", 4), ("bfloat16", 1), ("int8", 1)):
        x, x_scale = inputs(rng, dtype, (3, k) if x_sides == 1 else (x_sides, 3, k))
        got = fk.probe_matmul(x, flips, scale, grid, x_scale=x_scale)
        check(got, x, codes, scale, grid, None, x_scale)


def test_products_of_int8_are_exact(backend):
    """Their sums in int32, whatever the codes: scales of one leave whole and half numbers."""
    rng = np.random.default_rng(5)
    for grid in GRIDS:
        codes = torch.from_numpy(rng.integers(0, grid.levels, (3, 70)).astype(np.uint8))
        x = torch.from_numpy(rng.integers(-128, 128, (4, 70)).astype(np.int8))
        got = fk.probe_matmul(x, codes, torch.tensor(1.0), grid, x_scale=torch.ones(4))
        low, _, step, _ = oracle.levels(grid.kind, grid.bits)
        want = x.double() @ (low + step * codes.double()).T
        assert torch.equal(got[0].double(), want), grid


def test_largest_numbers_over_a_long_k(backend, monkeypatch):
    """2^17 + 32 products of -128 and -128 are more than int32 holds: K is split for that alone."""
    from fogzo_kernels.probe_matmul import triton_kernel

    monkeypatch.setattr(triton_kernel, "split_count", lambda *of: 1)
    k = 2**17 + 32
    codes = torch.zeros((1, k), dtype=torch.uint8)
    x = torch.full((1, k), -128, dtype=torch.int8)
    got = fk.probe_matmul(
        x, codes, torch.tensor(1.0), fk.Grid("mid-tread", 8), x_scale=torch.ones(1)
    )
    assert got.item() == 2.0**14 * k


def test_infinity_and_nan_in_float32_stay_in_their_rows(backend):
    x = torch.ones(4, 40)
    x[0, 3], x[1, 39], x[2, 0] = float("inf"), float("nan"), 3e38
    codes = torch.full((2, 40), 3, dtype=torch.uint8)
    got = fk.probe_matmul(x, codes, torch.tensor(2.0), fk.Grid("mid-rise", 2))[0]
    assert got[0].tolist() == [float("inf")] * 2
    assert got[1].isnan().all()
    assert got[2].tolist() == [float("inf")] * 2  # 9e38 is past float32
    assert got[3].tolist() == [120.0, 120.0]


def test_float8_takes_what_it_can_hold(backend):
    codes, scale = torch.zeros((2, 8), dtype=torch.uint8), torch.tensor(1.0)
    x = torch.ones(1, 8).to(torch.float8_e4m3fn)
    with pytest.raises(RuntimeError, match="triton: float8 x takes grids of at most 4 bits"):
        fk.probe_matmul(x, codes, scale, fk.Grid("mid-rise", 5), x_scale=torch.ones(1))
