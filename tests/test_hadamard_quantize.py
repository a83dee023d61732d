"""hadamard_quantize: the composition of its three operations, bit for bit but for a sum's order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import GRIDS, Guarded, as_kind, assert_same, finite, grid_id, ulps

import fogzo_kernels as fk

OPS = ("hadamard_quantize",)
MID = fk.Grid("mid-rise", 2)
# One element, a remainder alone, a block and its neighbours, rows longer than a program, no matrix.
SHAPES = ((1, 1), (3, 7), (2, 127), (4, 128), (3, 129), (2, 44), (2, 640), (2, 1031), (300,),
          (3, 4, 3, 3))  # fmt: skip
DTYPES = {"values": np.float32, "codes": np.uint8}


def composed(w, scale, grid, form):
    """hadamard, then the quantizer by a given scale, in the reference."""
    with fk.use_backend("reference"):
        rotated = fk.hadamard(w.reshape(scale.shape[0], -1)).reshape(w.shape)
        quantizer = fk.fake_quantize if form == "values" else fk.quantize
        return quantizer(rotated, scale, grid), fk.compute_scale(rotated, grid, "quest")


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("form", ["values", "codes"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_composition(backend, shape, form, kind):
    """The scale is a float64 sum in any order, rounded once: one unit off next to a tie."""
    rng = np.random.default_rng(len(shape) + shape[-1])
    for grid in (GRIDS[0], GRIDS[1], MID, fk.Grid("mid-tread", 5)):
        w = finite(rng, shape, 0.02)
        rows = 1 if len(shape) == 1 else shape[0]
        guards = Guarded(shape, DTYPES[form], kind), Guarded((rows, 1), np.float32, kind)
        given = as_kind(w, kind)
        out = tuple(guard.array for guard in guards)
        got = fk.hadamard_quantize(given, grid, form, out=out)
        assert all(one is into for one, into in zip(got, out, strict=True))
        scale = torch.as_tensor(got[1])
        want, exact = composed(torch.from_numpy(w), scale, grid, form)
        assert_same(got[0], want, f"{form} of {grid_id(grid)}")
        assert (ulps(scale, exact.numpy()) <= 1).all()
        fresh = fk.hadamard_quantize(given, grid, form)
        assert isinstance(fresh[0], type(given))
        for guard, one in zip(guards, fresh, strict=True):
            assert_same(one, guard.array, "without out")
            guard.check()


def test_a_tiny_weight_has_the_least_scale(backend):
    codes, scale = fk.hadamard_quantize(torch.zeros(2, 130), MID, "codes")
    assert scale.flatten().tolist() == [2.0**-100] * 2
    assert codes.unique().tolist() == [2]  # of -1/2 and 1/2, x - 1/2 rounds to even: 1/2


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_numbers_that_are_not_finite_are_refused(bad):
    w = torch.ones(2, 4)
    w[1, 2] = bad
    text = "hadamard_quantize: w has values that are not finite, expected finite numbers"
    with pytest.raises(ValueError, match=text):
        fk.hadamard_quantize(w, MID)


def test_bad_arguments_are_named():
    w, codes = torch.ones(2, 4), torch.zeros(2, 4, dtype=torch.uint8)
    for error, text, args, named in (
        (ValueError, "form is 'packed', expected one of values, codes", (w, MID, "packed"), {}),
        (ValueError, r"w has shape \(0, 4\), expected at least one element", (w[:0], MID), {}),
        (TypeError, "w has dtype float64, expected float32", (w.double(), MID), {}),
        (TypeError, r"out\[0\] has dtype uint8, expected float32", (w, MID),
         {"out": (codes, None)}),
        (ValueError, r"out\[1\] has shape \(2,\), expected \(2, 1\)", (w, MID),
         {"out": (None, torch.zeros(2))}),
        (ValueError, r"out\[0\] overlaps w in memory", (w, MID), {"out": (w, None)}),
        (ValueError, "out has length 1, expected 2", (w, MID), {"out": (w,)}),
    ):  # fmt: skip
        with pytest.raises(error, match=f"hadamard_quantize: {text}"):
            fk.hadamard_quantize(*args, **named)
