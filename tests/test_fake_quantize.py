"""fake_quantize and its backward: values, masks at the bin edges, scale gradients."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import torch
from helpers import (
    GRIDS,
    PAIRS,
    VIEWS,
    Guarded,
    assert_same,
    awkward,
    finite,
    grid_id,
    pair_id,
    scales,
    taken,
)

import fogzo_kernels as fk

OPS = ("fake_quantize", "fake_quantize_backward")
SURROGATE_PAIRS = tuple(p for p in PAIRS if p[2] == "published")
EXACT = ("identity", "clipped", "hardtanh", "trust")


def weights(shape, seed, make=awkward):
    rng = np.random.default_rng(seed)
    scale = scales(rng, shape)
    rows, cols = oracle.view(shape)
    with np.errstate(over="ignore"):
        w = make(rng, shape, 3.0).reshape(rows, cols) * oracle.spread(scale, rows, cols)
    return w.reshape(shape).astype(np.float32), finite(rng, shape), scale


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_forward_equals_the_oracle(backend, grid, kind):
    for number, (shape, _, _) in enumerate((*VIEWS, ((3, 40000), 0, None))):
        w, _, scale = weights(shape, number)
        with np.errstate(all="ignore"):
            want = oracle.fake_quantize(w, scale, grid.kind, grid.bits)
        arrays = (w, scale) if kind == "numpy" else [torch.from_numpy(a) for a in (w, scale)]
        guard = Guarded(shape, np.float32, kind)
        assert fk.fake_quantize(*arrays, grid, out=guard.array) is guard.array
        assert_same(guard.array, want, f"values of {shape}")
        guard.check()
        got = fk.fake_quantize(*arrays, grid)
        assert isinstance(got, type(arrays[0]))
        assert_same(got, want)
        assert_same(fk.fake_quantize(*arrays, grid, out=arrays[0]), want, "w over itself")


def test_nan_stays_nan(backend):
    w = torch.tensor([math.nan, 1.0])
    for grid in GRIDS:
        got = fk.fake_quantize(w, torch.tensor(0.5), grid)
        assert got.isnan().tolist() == [True, False]


@pytest.mark.parametrize("pair", SURROGATE_PAIRS, ids=pair_id)
def test_backward_equals_the_oracle(backend, pair):
    grid, surrogate, _ = pair
    for number, (shape, _, _) in enumerate(VIEWS):
        w, grad, scale = weights(shape, number)
        with np.errstate(all="ignore"):
            x, _ = oracle.bins(w, scale)
            slope = oracle.slope(x, surrogate, grid.kind, grid.bits).reshape(shape)
        arrays = [torch.from_numpy(a) for a in (grad, w, scale)]
        guard = Guarded(shape, np.float32, "torch")
        named = {"needs_scale_grad": False, "out": guard.array}
        got, none = taken(fk.fake_quantize_backward, *arrays, grid, surrogate, **named)
        assert none is None
        assert got is guard.array
        guard.check()
        got = got.numpy()
        if surrogate in EXACT:
            assert_same(got, np.where(slope == 1, grad, np.float32(0)), f"gradient of {shape}")
            continue
        # Float32 evaluation of h' (at most 3 roundings of numbers <= 2) and one product.
        usable = ~np.isnan(slope)
        error = abs(got - grad.astype(np.float64) * slope)[usable]
        assert (error <= 2.0**-21 * abs(grad)[usable] + 1e-44).all()


def test_slope_of_tanh_keeps_its_accuracy_where_tanh_is_near_one(backend):
    """In a kernel to 8 roundings of the slope itself; 1 - tanh^2 has an error of 2^-24 there."""
    x = torch.linspace(-45, 45, 1001)
    got, _ = fk.fake_quantize_backward(
        torch.ones(1001), x, torch.tensor(1.0), fk.Grid("sign"), "tanh", needs_scale_grad=False
    )
    want = x.double().cosh().pow(-2)
    share, least = (0.0, 2.0**-22) if backend == "reference" else (2.0**-21, 1e-37)
    allowed = share * want + least
    assert ((got.double() - want).abs() <= allowed).all()
    ends = torch.tensor([math.inf, -math.inf, -200.0, 3e38, math.nan])
    got, _ = fk.fake_quantize_backward(
        torch.ones(5), ends, torch.tensor(1.0), fk.Grid("sign"), "tanh", needs_scale_grad=False
    )
    assert got[:4].tolist() == [0.0] * 4
    assert got[4].isnan()


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_masks_are_closed_at_the_bin_edges(backend, grid):
    """v_min and v_max themselves are inside, their neighbours outside are not."""
    name = grid.default_surrogate
    low, high = np.float32(grid.v_min), np.float32(grid.v_max)
    x = np.array(
        [np.nextafter(low, np.float32(-np.inf)), low, np.nextafter(low, np.float32(0)),
         np.nextafter(high, np.float32(0)), high, np.nextafter(high, np.float32(np.inf))],
        np.float32,
    )  # fmt: skip
    got, _ = fk.fake_quantize_backward(
        torch.ones(6), torch.from_numpy(x), torch.tensor(1.0), grid, name, needs_scale_grad=False
    )
    assert got.tolist() == [0.0, 1.0, 1.0, 1.0, 1.0, 0.0]


def test_trust_mask_at_its_edge(backend):
    """|value(x) - x| = 1/2 is trusted; outside the range it is so up to half a bin further."""
    grid = fk.Grid("mid-tread", 2)
    x = torch.tensor([-2.5, -2.5000002, 1.5, 1.5000001, 0.5, 0.0])
    got, _ = fk.fake_quantize_backward(
        torch.ones(6), x, torch.tensor(1.0), grid, "trust", needs_scale_grad=False
    )
    assert got.tolist() == [1.0, 0.0, 1.0, 0.0, 1.0, 1.0]


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_scale_gradient_equals_float64(backend, grid, granularity):
    rng = np.random.default_rng(4)
    w = finite(rng, (4, 86), 2.0)
    grad, scale = finite(rng, w.shape), scales(rng, w.shape, granularity)
    arrays = [torch.from_numpy(a) for a in (grad, w, scale)]
    _, got = taken(fk.fake_quantize_backward, *arrays, grid)
    assert got.shape == scale.shape
    x, _ = oracle.bins(w, scale)
    terms = grad.astype(np.float64) * oracle.scale_slope(x, grid.kind, grid.bits)
    groups = 1 if scale.ndim < 3 else scale.shape[1]
    rows = 1 if scale.ndim == 0 else 4
    per_scale = terms.reshape(rows, groups, -1)
    levels = max(1, 2 ** (grid.code_bits - 1) - 1)
    factor = 1 / math.sqrt(w.size * levels)
    want = (factor * per_scale.sum(-1)).reshape(scale.shape)
    # x is given in float32; t, the products and the sum round once each at worst in float32.
    size = per_scale.shape[-1]
    bound = factor * abs(per_scale).sum(-1).reshape(scale.shape) * (size + 4) * 2.0**-24
    assert (abs(got.numpy() - want) <= bound + 1e-30).all()


@pytest.mark.parametrize("granularity", ["tensor", "channel", "group"])
@pytest.mark.parametrize("grid", [fk.Grid("ternary"), fk.Grid("mid-rise", 4)], ids=grid_id)
def test_a_limit_takes_the_place_of_the_range(backend, grid, granularity):
    """Closed at the float32 nearest to the limit, in the mask and in the scale's slope."""
    rng = np.random.default_rng(6)
    w = finite(rng, (4, 86), 2.0)
    grad, scale = finite(rng, w.shape), scales(rng, w.shape, granularity)
    scale[(0,) if scale.ndim else ()] = 1.0  # all of row 0
    limit, edge = 0.99, np.float32(0.99)
    w[0, :4] = edge, -edge, np.nextafter(edge, np.float32(9)), np.nextafter(-edge, np.float32(-9))
    arrays = [torch.from_numpy(a) for a in (grad, w, scale)]
    got, slope = taken(fk.fake_quantize_backward, *arrays, grid, "clipped", limit=limit)
    x, _ = oracle.bins(w, scale)
    assert_same(got.numpy(), np.where(abs(x) <= edge, grad, np.float32(0)).reshape(w.shape))
    assert (got[0, :4] == torch.from_numpy(grad)[0, :4]).tolist() == [True, True, False, False]
    terms = grad.astype(np.float64) * oracle.scale_slope(x, grid.kind, grid.bits, limit)
    per_scale = terms.reshape(*scale.shape[:2], -1) if scale.ndim == 3 else terms
    share = math.sqrt(w.size * max(1, 2 ** (grid.code_bits - 1) - 1))
    axis = None if scale.ndim == 0 else -1
    want, size = (sums.reshape(scale.shape) for sums in (
        per_scale.sum(axis) / share, abs(per_scale).sum(axis) / share
    ))  # fmt: skip
    # value - x rounds once in float32, and so does the sum, which is float64's
    assert (abs(slope.numpy() - want) <= 2.0**-23 * size + 1e-30).all()


def test_scale_gradient_equals_autograd_through_the_lsq_rule(backend):
    """float64 autograd of a * (stop(value(x) - x) + clamp(x)) with respect to a."""
    rng = np.random.default_rng(9)
    grid = fk.Grid("mid-tread", 3)
    w, grad = finite(rng, (3, 50), 3.0), finite(rng, (3, 50))
    a = torch.tensor(0.75, dtype=torch.float64, requires_grad=True)
    x = torch.from_numpy(w).double() / a
    inside = (x >= grid.v_min) & (x <= grid.v_max)
    soft = torch.where(inside, x, x.detach().clamp(grid.v_min, grid.v_max))
    value = x.detach().round().clamp(grid.v_min, grid.v_max)
    quantized = a * (soft + (value - soft).detach())
    (quantized * torch.from_numpy(grad)).sum().backward()
    factor = 1 / math.sqrt(w.size * 3)
    want = factor * float(a.grad)
    _, got = taken(
        fk.fake_quantize_backward, torch.from_numpy(grad), torch.from_numpy(w),
        torch.tensor(0.75), grid,
    )  # fmt: skip
    # t = value - x takes over the 2 roundings of x = w * (1/a); it, the product with grad, the sum
    # of w.size terms and the factor (2) round in float32 too.
    t = (value - torch.where(inside, x, 0)).detach().abs()
    terms = torch.from_numpy(grad).abs() * (2 * x.detach().abs() + (w.size + 4) * t)
    assert abs(float(got) - want) <= factor * float(terms.sum()) * 2.0**-24


def test_grad_may_be_overwritten(backend):
    w, grad, scale = weights((5, 129), 1)
    want, _ = fk.fake_quantize_backward(
        *map(torch.from_numpy, (grad, w, scale)), GRIDS[5], needs_scale_grad=False
    )
    into = torch.from_numpy(grad.copy())
    got, _ = fk.fake_quantize_backward(
        into, torch.from_numpy(w), torch.from_numpy(scale), GRIDS[5],
        needs_scale_grad=False, out=into,
    )  # fmt: skip
    assert got is into
    assert_same(into, want)
