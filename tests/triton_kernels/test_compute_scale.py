"""Triton's compute_scale where the public tests do not reach: many parts of a scale, NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import Guarded, assert_same, finite, ulps

import fogzo_kernels as fk
from fogzo_kernels.compute_scale import triton_kernel

GRID = fk.Grid("mid-rise", 3)
SUMS = ("fixed", "absmean", "lsq", "quest")  # the others take the largest value


@pytest.mark.parametrize("size", [None, 1, 43, 258])
@pytest.mark.parametrize("rule", ["fixed", "absmean", "absmax", "lsq", "quest", "stretched"])
def test_equals_the_reference(backend, rule, size):
    """A float64 sum in another order, rounded once: one unit off next to a tie."""
    if rule == "quest" and size:
        pytest.skip("it has a scale a row")
    grid = fk.Grid("sign") if rule == "absmean" else GRID
    w = torch.from_numpy(finite(np.random.default_rng(3), (3, 2, 129), 0.02))
    guard = Guarded((3, 258 // size, 1) if size else (3, 1), np.float32, "torch")
    where = (rule, "group", size) if size else (rule,)
    assert fk.compute_scale(w, grid, *where, out=guard.array) is guard.array
    guard.check()
    with fk.use_backend("reference"):
        want = fk.compute_scale(w, grid, *where)
    assert (ulps(guard.array, want.numpy()) <= (rule in SUMS)).all()


@pytest.mark.parametrize("rule", ["fixed", "absmax", "lsq", "stretched"])
def test_a_scale_of_many_parts(backend, rule):
    """512 elements a part: 21 parts are more than the 16 that the second kernel takes at once."""
    w = torch.from_numpy(finite(np.random.default_rng(0), (1, 10501)))
    w[0, 10500] = 7.0
    got = fk.compute_scale(w, GRID, rule, "tensor")
    with fk.use_backend("reference"):
        want = fk.compute_scale(w, GRID, rule, "tensor")
    assert (ulps(got, want.numpy()) <= (rule in SUMS)).all()


@pytest.mark.parametrize(("rows", "width"), [(64, 3), (16, 1100)])  # a few squares, long sums
@pytest.mark.parametrize("rule", SUMS)
def test_sums_that_float64_holds_are_exact(backend, rule, rows, width):
    """Integers below 2^19, squares below 2^38, sums below 2^49: equal in any order of additions."""
    w = torch.from_numpy(np.random.default_rng(1).integers(-(2**19), 2**19, (rows, width))).float()
    grid = fk.Grid("sign") if rule == "absmean" else GRID
    got = fk.compute_scale(w, grid, rule)
    with fk.use_backend("reference"):
        assert_same(got, fk.compute_scale(w, grid, rule))


@pytest.mark.parametrize("shape", [(3, 1), ()])
@pytest.mark.parametrize("rule", ["fixed", "absmax", "lsq", "stretched"])
def test_what_is_no_number_stays_none(rule, shape):
    """On a GPU values are not read: the scale says it. The public call refuses them on a CPU."""
    w = torch.ones(3, 1100)
    w[1, 1050] = math.nan
    w[2, 3] = math.inf
    got = triton_kernel.compute_scale(w, GRID, rule, shape, None)
    want = [1.0, math.nan, math.inf] if shape else [math.nan]
    assert_same(torch.where(got.isfinite(), 1.0, got).flatten(), torch.tensor(want))
