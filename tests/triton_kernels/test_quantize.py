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


def test_tanh_is_refused_with_the_reason():
    w = torch.ones(2, 4)
    with (
        fk.use_backend("triton"),
        pytest.raises(RuntimeError, match="triton: it does not compute tanh"),
    ):
        fk.fake_quantize_backward(w, w, torch.tensor(1.0), fk.Grid("sign"), "tanh")
