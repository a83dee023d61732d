"""Blocks by scale: quantize, dequantize, fake_quantize and its gradients at their edges."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import GRIDS, ODD, assert_same, awkward, grid_id

import fogzo_kernels as fk

# groups that fill a block's row, share a block, or need several; ragged last parts
VIEWS = (
    ((1,), ()),
    ((4, 96), (4, 1)),
    ((3, 128), (3, 8, 1)),
    ((2, 1031), (2, 1)),
    ((5, 129), (5, 43, 1)),
    ((2, 5200), ()),
    ((600, 2), (600, 1)),
)


def inputs(shape, scale):
    rng = np.random.default_rng(len(shape) + shape[0])
    w = torch.from_numpy(awkward(rng, shape))
    flat = w.view(-1)
    flat[: len(ODD)] = torch.from_numpy(ODD[: flat.numel()])
    a = torch.from_numpy(np.asarray(rng.choice((0.25, 0.5, 1.37, 3.0), scale), np.float32))
    return w, torch.from_numpy(rng.normal(0, 1, shape).astype(np.float32)), a


def both(call):
    with fk.use_backend("triton"):
        got = call()
    with fk.use_backend("reference"):
        return got, call()


@pytest.mark.parametrize("grid", GRIDS[::4], ids=grid_id)
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_codes_and_values_equal_the_reference(view, grid):
    w, _, a = inputs(*view)
    codes, want = both(lambda: fk.quantize(w, a, grid))
    assert_same(codes, want, "codes")
    assert_same(*both(lambda: fk.fake_quantize(w, a, grid)), "fake_quantize")
    assert_same(*both(lambda: fk.dequantize(codes, a, grid)), "dequantize")
    packed, want = both(lambda: fk.pack(codes, grid.code_bits))
    assert_same(packed.data, want.data, "packed")
    assert_same(*both(lambda: fk.dequantize(packed, a, grid)), "dequantize of packed")
    assert_same(*both(lambda: fk.unpack(packed)), "unpacked")


PAIRS = [("sign", s) for s in ("hardtanh", "approx_sign", "trust")]
PAIRS += [("ternary", s) for s in ("identity", "clipped", "trust")]


@pytest.mark.parametrize("pair", PAIRS, ids="-".join)
@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_gradients_equal_the_reference(view, pair):
    """grad_w bit for bit; grad_scale is a float64 sum in another order, rounded once: one ulp."""
    kind, surrogate = pair
    w, g, a = inputs(*view)
    w = torch.where(w.isfinite() & (w.abs() < 1e30), w, 0.7)
    named = {"grid": fk.Grid(kind), "surrogate": surrogate}
    (got, slope), (want, exact) = both(lambda: fk.fake_quantize_backward(g, w, a, **named))
    assert_same(got, want, "grad_w")
    # float64 sums of n terms differ by n * 2^-53 of the sum of magnitudes at most
    v = fk.fake_quantize(w, a, fk.Grid(kind)).abs().max() / a.min() + w.abs().max() / a.min()
    rounding = w.numel() * 2.0**-53 * float(g.abs().sum() * v)
    assert ((slope - exact).abs() <= 2.0**-23 * exact.abs() + rounding).all()
    with fk.use_backend("triton"):
        again, none = fk.fake_quantize_backward(g, w, a, **named, needs_scale_grad=False)
    assert none is None
    assert_same(again, want, "grad_w alone")


@pytest.mark.parametrize("grid", [fk.Grid("ternary"), fk.Grid("mid-rise", 4)], ids=grid_id)
@pytest.mark.parametrize("view", VIEWS[1:5], ids=str)
def test_a_limit_takes_the_place_of_the_range(view, grid):
    """Closed at the float32 nearest to the limit, in the mask and in the scale's slope."""
    w, g, a = inputs(*view)
    w = torch.where(w.isfinite() & (w.abs() < 1e30), w, 0.7)
    limit = 0.99
    flat, edge = w.view(w.shape[0], -1), np.float32(limit)
    flat[:, 0], flat[:, 1] = float(edge), float(np.nextafter(-edge, np.float32(-9)))
    a.view(-1)[0] = 1.0
    named = {"grid": grid, "surrogate": "clipped", "limit": limit}
    (got, slope), (want, exact) = both(lambda: fk.fake_quantize_backward(g, w, a, **named))
    assert_same(got, want, "grad_w")
    assert got.view(-1)[0] == g.view(-1)[0]
    assert got.view(-1)[1] == 0
    v = fk.fake_quantize(w, a, grid).abs().max() / a.min() + w.abs().max() / a.min()
    rounding = w.numel() * 2.0**-53 * float(g.abs().sum() * v)
    assert ((slope - exact).abs() <= 2.0**-23 * exact.abs() + rounding).all()


def test_the_slope_of_tanh_has_the_bits_of_the_native_one():
    """All of grid.h's operations in its order, from +-0 to where e is 0, with its remainder."""
    x = torch.cat([torch.linspace(-45, 45, 3001), torch.from_numpy(ODD)])
    call = (torch.full_like(x, 1.37), x, torch.tensor(1.0), fk.Grid("sign"), "tanh")
    with fk.use_backend("triton"):
        got, slope = fk.fake_quantize_backward(*call)
    assert slope.shape == ()
    want = 1.37 * x.double().cosh().pow(-2)
    error = (got.double() - want).abs()
    assert ((error <= 2.0**-20 * want.abs() + 1e-37) | x.isnan()).all()
    assert torch.equal(got.isnan(), x.isnan())
    if fk.why_not("cpu") is not None:
        pytest.skip("no native module to compare with")
    with fk.use_backend("cpu"):
        assert_same(got, fk.fake_quantize_backward(*call)[0], "grad_w")
