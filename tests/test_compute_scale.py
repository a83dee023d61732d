"""compute_scale: every rule against float64, and the `fixed` multiples against a minimisation."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import GRIDS, Guarded, assert_same, finite, grid_id, ulps

import fogzo_kernels as fk

OPS = ("compute_scale",)
MID_RISE = "0.9957 0.5860 0.3352 0.1881 0.1041 0.05687 0.03076"  # 2..8 bits, DESIGN section 2
MID_TREAD = "1.0484 0.6018 0.3386 0.1888 0.1042 0.05689 0.03077"
MULTIPLES = {
    ("sign", None): "0.798",
    ("ternary", None): "1.224",
    **{("mid-rise", b): m for b, m in enumerate(MID_RISE.split(), 2)},
    **{("mid-tread", b): m for b, m in enumerate(MID_TREAD.split(), 2)},
}
GRANULARITIES = (("tensor", None), ("channel", None), ("group", 43))


def split(w, granularity, group_size):
    """The elements of each scale, [scales, elements], and the scales' shape."""
    rows = w.shape[0] if w.ndim > 1 else 1
    flat = w.reshape(rows, -1).astype(np.float64)
    if granularity == "tensor":
        return flat.reshape(1, -1), ()
    if granularity == "channel":
        return flat, (rows, 1)
    return flat.reshape(-1, group_size), (rows, flat.shape[1] // group_size, 1)


def gaussian_error(grid, a):
    """E (z - a value(z / a))^2 for a standard normal z, exactly, value by value."""

    def moments(low, high):
        """Integrals of 1, z and z^2 times the normal density between low and high."""
        pdf = [math.exp(-t * t / 2) / math.sqrt(2 * math.pi) if abs(t) < 1e3 else 0.0
               for t in (low, high)]  # fmt: skip
        cdf = [0.5 * math.erfc(-t / math.sqrt(2)) for t in (low, high)]
        edge = [t * p if abs(t) < 1e3 else 0.0 for t, p in zip((low, high), pdf, strict=True)]
        return cdf[1] - cdf[0], pdf[0] - pdf[1], cdf[1] - cdf[0] + edge[0] - edge[1]

    values = np.linspace(grid.v_min, grid.v_max, grid.levels)
    edges = [-1e9, *((values[1:] + values[:-1]) / 2 * a), 1e9]
    total = 0.0
    for v, low, high in zip(values * a, edges[:-1], edges[1:], strict=True):
        m0, m1, m2 = moments(low, high)
        total += m2 - 2 * v * m1 + v * v * m0
    return total


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_the_fixed_multiple_minimises_the_gaussian_error(grid):
    """Golden-section search, to half a unit of the table's last digit."""
    low, high, golden = 1e-3, 3.0, (math.sqrt(5) - 1) / 2
    while high - low > 1e-7:
        left, right = high - golden * (high - low), low + golden * (high - low)
        if gaussian_error(grid, left) < gaussian_error(grid, right):
            high = right
        else:
            low = left
    listed = MULTIPLES[grid.kind, grid.bits]
    decimals = len(listed.partition(".")[2])
    assert abs((low + high) / 2 - float(listed)) <= 0.5 * 10.0**-decimals + 1e-6
    w = torch.tensor([[1.0, -1.0, 1.0, -1.0]])
    assert float(fk.compute_scale(w, grid)) == pytest.approx(float(listed), rel=1e-6)


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize(("granularity", "size"), GRANULARITIES)
@pytest.mark.parametrize("rule", ["fixed", "absmean", "absmax", "lsq", "quest", "stretched"])
def test_equals_float64(backend, rule, granularity, size, kind):
    if rule == "quest" and granularity != "channel":
        with pytest.raises(ValueError, match="expected 'channel' for rule 'quest'"):
            fk.compute_scale(torch.ones(1, 43), GRIDS[1], rule, granularity, size)
        return
    for grid in GRIDS[:2] if rule == "absmean" else GRIDS:
        w = finite(np.random.default_rng(3), (4, 2, 43), 0.02)
        parts, shape = split(w, granularity, size)
        if rule in ("fixed", "quest"):
            want = float(MULTIPLES[grid.kind, grid.bits]) * np.sqrt((parts**2).mean(1))
        elif rule == "absmax":
            want = abs(parts).max(1) / grid.v_max
        elif rule == "stretched":
            want = abs(parts).max(1) / (grid.v_max + 0.5)
        else:
            want = abs(parts).mean(1)
            if rule == "lsq" and grid.kind != "sign":
                want = 2 * want / math.sqrt(max(1, 2 ** (grid.code_bits - 1) - 1))
        given_w = w if kind == "numpy" else torch.from_numpy(w)
        got = fk.compute_scale(given_w, grid, rule, granularity, size)
        assert isinstance(got, type(given_w))
        assert tuple(got.shape) == shape
        if rule == "absmax":
            rounded = want.astype(np.float32)
            want = np.nextafter(rounded, np.float32(np.inf)).reshape(shape)
            assert_same(got, want, grid_id(grid))
        else:
            assert (ulps(got, want.reshape(shape)) <= 1).all()
        guard = Guarded(shape, np.float32, kind)
        assert fk.compute_scale(given_w, grid, rule, granularity, size, out=guard.array) is (
            guard.array
        )
        assert_same(guard.array, got)
        guard.check()


@pytest.mark.parametrize("grid", [g for g in GRIDS if g.kind == "mid-rise"], ids=grid_id)
def test_absmax_keeps_every_maximum_in_range(grid):
    """Without the nextafter 14-22 % of maxima fall outside."""
    w = finite(np.random.default_rng(8), (4000, 16))
    scale = fk.compute_scale(torch.from_numpy(w), grid, "absmax").numpy()
    x = w * (np.float32(1) / scale)
    assert (abs(x).max(1) <= grid.v_max).all()
    lower = np.nextafter(scale, np.float32(0))
    assert (abs(w * (np.float32(1) / lower)).max(1) > grid.v_max).mean() > 0.1


def test_floors():
    zero = torch.zeros(2, 4)
    grid = fk.Grid("ternary")
    for rule in ("fixed", "lsq", "quest", "stretched"):
        assert fk.compute_scale(zero, grid, rule).tolist() == [[2.0**-100]] * 2
    for rule in ("absmean", "absmax"):
        got = fk.compute_scale(zero, grid, rule)
        assert got.tolist() == [[pytest.approx(1e-8, rel=1e-6)]] * 2


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", ["fixed", "absmean", "absmax", "lsq", "quest", "stretched"])
def test_numbers_that_are_not_finite_are_refused(backend, rule, bad):
    """Wherever they lie: in a vector, behind the last one, in another block."""
    for column in (0, 7, 1024, 1030):
        w = torch.full((3, 1031), 0.5)
        w[1, column] = bad
        with pytest.raises(ValueError, match="compute_scale: w has values that are not finite"):
            fk.compute_scale(w, GRIDS[1], rule)


@pytest.mark.parametrize("size", [(1, 200_003), (70_001, 3), (300, 1025)], ids=str)
@pytest.mark.parametrize("granularity", ["tensor", "channel"])
def test_many_elements_and_threads(granularity, size):
    """One result whatever the threads, and the float64 one but for a tie."""
    w = torch.from_numpy(finite(np.random.default_rng(2), size))
    parts, shape = split(w.numpy(), granularity, None)
    before = torch.get_num_threads()
    try:
        for rule in ("fixed", "absmean", "absmax"):
            found = []
            for threads in (1, 2, 5):
                torch.set_num_threads(threads)
                found.append(fk.compute_scale(w, GRIDS[1], rule, granularity))
            assert all(torch.equal(one, found[0]) for one in found)
            wanted = {
                "fixed": 1.224 * np.sqrt((parts**2).mean(1)),
                "absmean": abs(parts).mean(1),
                "absmax": np.nextafter(abs(parts).max(1).astype(np.float32), np.float32(9)),
            }[rule]
            assert (ulps(found[0], wanted.reshape(shape)) <= 1).all()
    finally:
        torch.set_num_threads(before)
