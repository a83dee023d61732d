"""quantize_activation: a scale a row, correctly rounded, equal bits on every backend."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_same, taken

import fogzo_kernels as fk

OPS = ("quantize_activation",)
SPECIAL = [0.0, -0.0, 1e-45, -1e-45, 3e-39, 1e38, -3e38, 0.5, -0.5, 1.5]


def expected(x, bits):
    """The definition in NumPy float32."""
    if bits == 1:
        total = np.abs(x).astype(np.float64).sum(-1)
        codes = np.where(np.isnan(x), 0, np.where(x >= 0, 1, -1))
        return codes.astype(np.int8), (total / max(x.shape[-1], 1)).astype(np.float32)
    q = np.float32(2 ** (bits - 1) - 1)
    with np.errstate(all="ignore"):
        largest = np.abs(x).max(-1, initial=0.0)
        x_scale = (np.where(np.isnan(x).any(-1), np.float32("nan"), largest) / q).astype(np.float32)
        ratio = x / x_scale[..., None]
        codes = np.clip(np.rint(ratio), -q, q)
    return np.where(np.isnan(ratio), 0, codes).astype(np.int8), x_scale


@pytest.mark.parametrize("bits", [1, 2, 3, 4, 8])
@pytest.mark.parametrize("shape", [(1, 1), (3, 7), (5, 32), (2, 3, 33), (9, 257), (0, 4), (4, 0)])
def test_equals_the_definition(backend, shape, bits):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape).astype(np.float32)
    for got, want in zip(
        taken(fk.quantize_activation, torch.from_numpy(x), bits), expected(x, bits), strict=True
    ):
        assert_same(got, want)


def test_ties_zeros_and_numbers_that_are_none(backend):
    rows = np.zeros((len(SPECIAL) + 5, 41), np.float32)
    for i, value in enumerate(SPECIAL):
        rows[i, 3], rows[i, 40] = value, value / 3
    rows[-1, :8] = [127, 0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 126.5]  # scale 1: halves round to even
    rows[-2, 35] = np.nan
    rows[-3, :2] = [np.inf, 1]
    rows[-4, :2] = [-np.inf, np.nan]
    got = taken(fk.quantize_activation, torch.from_numpy(rows))
    codes, x_scale = expected(rows, 8)
    assert_same(got[0], codes)
    assert got[0][-1, :8].tolist() == [127, 0, 2, 2, 0, -2, -2, 126]
    nan = np.isnan(x_scale)
    assert np.array_equal(got[1].isnan().numpy(), nan)
    assert_same(got[1][torch.from_numpy(~nan)], x_scale[~nan])


def test_one_bit_of_zeros_and_numbers_that_are_none(backend):
    rows = np.zeros((4, 11), np.float32)
    rows[0, :3] = [-0.0, -1e-45, 1e-45]
    rows[1, :2] = [np.nan, -2]
    rows[2, :2] = [np.inf, -np.inf]
    codes, x_scale = taken(fk.quantize_activation, torch.from_numpy(rows), 1)
    assert_same(codes, expected(rows, 1)[0])
    assert codes[0, :3].tolist() == [1, -1, 1]
    assert codes[1, :3].tolist() == [0, -1, 1]
    assert x_scale[[0, 3]].tolist() == [0, 0]
    assert x_scale[1].isnan()
    assert x_scale[2].isinf()


def test_one_bit_is_summed_in_float64(backend):
    x = torch.full((1, 4099), 1e-4)
    x[0, 0] = 3e3
    assert_same(taken(fk.quantize_activation, x, 1)[1], expected(x.numpy(), 1)[1])


def test_out_bfloat16_and_numpy(backend):
    x = torch.linspace(-3, 5, 66).reshape(2, 33)
    codes, x_scale = torch.full((2, 33), 99, dtype=torch.int8), torch.full((2,), 99.0)
    got = taken(fk.quantize_activation, x, out=(codes, x_scale))
    assert got[0] is codes
    assert got[1] is x_scale
    for given, same in ((x.numpy(), x), (x.bfloat16(), x.bfloat16().float())):
        for a, b in zip(fk.quantize_activation(given), fk.quantize_activation(same), strict=True):
            assert_same(a, b)
    vector = fk.quantize_activation(x[0])
    assert vector[0].shape == (33,)
    assert vector[1].shape == ()


def test_refusals():
    x = torch.ones(2, 4)
    with pytest.raises(
        ValueError, match=r"quantize_activation: bits is 9, expected an int in 1\.\.8"
    ):
        fk.quantize_activation(x, 9)
    with pytest.raises(TypeError, match="x has dtype float64, expected float32 or bfloat16"):
        fk.quantize_activation(x.double())
    with pytest.raises(ValueError, match=r"out\[1\] has shape \(4,\), expected \(2,\)"):
        fk.quantize_activation(x, out=(torch.empty(2, 4, dtype=torch.int8), torch.empty(4)))
