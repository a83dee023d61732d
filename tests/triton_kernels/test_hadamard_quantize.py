"""Triton's hadamard_quantize in the interpreter: remainders, rows that share a program or take
several parts, NaN."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from helpers import Guarded, assert_same, finite, ulps

import fogzo_kernels as fk
from fogzo_kernels._check import View
from fogzo_kernels.hadamard_quantize import triton_kernel

MID = fk.Grid("mid-rise", 2)
SHAPES = ((1, 1), (3, 7), (5, 128), (3, 129), (2, 512), (2, 1031), (300,), (2, 3, 3, 15))


@pytest.mark.parametrize(("form", "dtype"), [("values", np.float32), ("codes", np.uint8)])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_equals_the_composition(backend, shape, form, dtype):
    w = torch.from_numpy(finite(np.random.default_rng(shape[-1]), shape, 0.02))
    rows = 1 if len(shape) == 1 else shape[0]
    for grid in (fk.Grid("sign"), MID, fk.Grid("mid-tread", 5)):
        guards = Guarded(shape, dtype, "torch"), Guarded((rows, 1), np.float32, "torch")
        fk.hadamard_quantize(w, grid, form, out=tuple(guard.array for guard in guards))
        result, scale = (guard.array for guard in guards)
        with fk.use_backend("reference"):
            rotated = fk.hadamard(w.reshape(rows, -1)).reshape(shape)
            exact = fk.compute_scale(rotated, grid, "quest")
            quantizer = fk.fake_quantize if form == "values" else fk.quantize
            assert_same(result, quantizer(rotated, scale, grid), form)
        assert (ulps(scale, exact.numpy()) <= 1).all()
        for guard in guards:
            guard.check()


def test_a_row_with_a_nan_is_nan_and_no_other():
    """On a GPU values are not read; the public call refuses them on a CPU."""
    w = torch.ones(3, 300)
    w[1, 290] = math.nan
    view = View("torch", "cpu", (3, 300), 3, 300)
    values, scale = triton_kernel.hadamard_quantize(w, MID, "values", view, None)
    assert scale.isnan().flatten().tolist() == [False, True, False]
    assert values[1].isnan().all()
    assert values[[0, 2]].isfinite().all()
