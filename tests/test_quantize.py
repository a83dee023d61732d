"""quantize and dequantize: every grid's rounding at ties, signed zeros, infinities and NaNs."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import GRIDS, ODD, VIEWS, Guarded, assert_same, awkward, grid_id, scales
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("quantize", "dequantize")
FINITE = st.floats(width=32, allow_nan=False, allow_infinity=False)


def weights(shape, seed=0):
    rng = np.random.default_rng(seed)
    scale = scales(rng, shape)
    rows, cols = oracle.view(shape)
    with np.errstate(over="ignore"):
        w = awkward(rng, shape, 3.0).reshape(rows, cols) * oracle.spread(scale, rows, cols)
    return w.reshape(shape), scale


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_equals_the_oracle(backend, grid, kind):
    for number, (shape, _, _) in enumerate(VIEWS):
        w, scale = weights(shape, number)
        given_w, given_scale = (w, scale) if kind == "numpy" else map(torch.from_numpy, (w, scale))
        with np.errstate(all="ignore"):
            x, a = oracle.bins(w, scale)
            codes = oracle.code(x, grid.kind, grid.bits).reshape(shape)
            values = (a * oracle.value(x, grid.kind, grid.bits)).reshape(shape)
        guard = Guarded(shape, np.uint8, kind)
        got = fk.quantize(given_w, given_scale, grid, out=guard.array)
        assert got is guard.array
        assert_same(got, codes, f"codes of {shape}")
        guard.check()
        assert_same(fk.quantize(given_w, given_scale, grid), codes)
        guard = Guarded(shape, np.float32, kind)
        assert fk.dequantize(got, given_scale, grid, out=guard.array) is guard.array
        assert_same(guard.array, values, f"values of {shape}")
        guard.check()
        packed = fk.pack(got, grid.code_bits)
        assert_same(fk.dequantize(packed, given_scale, grid), values, f"values of packed {shape}")


@pytest.mark.parametrize(
    ("kind", "bits", "codes"),
    [
        ("sign", None, [1, 1, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 0, 1, 1, 0, 1, 0, 0]),
        ("ternary", None, [1, 1, 1, 1, 2, 0, 2, 0, 2, 0, 2, 0, 1, 1, 1, 2, 0, 2, 0, 0]),
        ("mid-tread", 2, [2, 2, 2, 2, 3, 1, 3, 0, 3, 0, 3, 0, 2, 2, 2, 3, 0, 3, 0, 0]),
        ("mid-rise", 2, [2, 2, 2, 1, 2, 0, 3, 0, 3, 0, 3, 0, 2, 2, 2, 3, 0, 3, 0, 0]),
    ],
)
def test_known_codes(backend, kind, bits, codes):
    """ODD in order, in bins; by hand from the table of DESIGN section 2."""
    got = fk.quantize(torch.from_numpy(ODD), torch.tensor(1.0), fk.Grid(kind, bits))
    assert got.tolist() == codes


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_a_value_of_zero_is_positive_zero(backend, grid):
    w = torch.tensor([-0.0, -0.25, -1e-45, 0.25])
    for result in (
        fk.dequantize(fk.quantize(w, torch.tensor(1.0), grid), torch.tensor(1.0), grid),
        fk.fake_quantize(w, torch.tensor(1.0), grid),
    ):
        assert not torch.signbit(result[result == 0]).any()


@given(w=st.lists(FINITE, min_size=1, max_size=40), power=st.integers(-20, 20), number=st.data())
def test_quantizing_a_quantized_weight_changes_nothing(w, power, number):
    grid = number.draw(st.sampled_from(GRIDS))
    w, a = torch.tensor(w, dtype=torch.float32), torch.tensor(2.0**power)
    codes = fk.quantize(w, a, grid)
    values = fk.dequantize(codes, a, grid)
    assert_same(fk.quantize(values, a, grid), codes)
    assert_same(fk.dequantize(fk.quantize(values, a, grid), a, grid), values)
    assert_same(fk.fake_quantize(w, a, grid), values, "fake_quantize")


def test_codes_of_any_scale_survive_a_round_trip():
    """value * a * (1/a) stays within 2^-22 relative of the value: far from a tie on every grid."""
    rng = np.random.default_rng(0)
    a = torch.from_numpy(np.exp(rng.uniform(-40, 40, (500, 1))).astype(np.float32))
    for grid in GRIDS:
        codes = torch.from_numpy(rng.integers(0, grid.levels, (500, 16)).astype(np.uint8))
        assert_same(fk.quantize(fk.dequantize(codes, a, grid), a, grid), codes)


@pytest.mark.parametrize("bits", range(2, 9))
@pytest.mark.parametrize("kind", ["mid-tread", "mid-rise"])
def test_every_tie_goes_to_the_even_neighbour(backend, kind, bits):
    """Both neighbours of each tie as well; the index of the tie's nearest even integer wins."""
    grid = fk.Grid(kind, bits)
    half = 2 ** (bits - 1)
    shift = 0.0 if kind == "mid-tread" else 0.5
    ties = np.arange(-half, half, dtype=np.float32) + np.float32(0.5)
    for toward in (-np.inf, None, np.inf):
        t = ties if toward is None else np.nextafter(ties, np.float32(toward))
        x = (t + np.float32(shift)).astype(np.float32)
        exact = x.astype(np.float64) - shift
        want = np.clip([round(v) for v in exact], -half, half - 1) + half
        got = fk.quantize(torch.from_numpy(x), torch.tensor(1.0), grid)
        assert_same(got, want.astype(np.uint8), f"toward {toward}")
