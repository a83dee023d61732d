"""hadamard: the float32 butterflies bit for bit, and the matrix they are."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import Guarded, assert_same, awkward, finite
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("hadamard",)
WIDTHS = (0, 1, 2, 3, 44, 127, 128, 129, 255, 256, 300, 1031)


def matrix(size: int) -> np.ndarray:
    """Sylvester's: entry (-1)^(number of common bits of row and column)."""
    index = np.arange(size)
    common = index[:, None] & index
    parity = np.array([bin(n).count("1") & 1 for n in common.reshape(-1)]).reshape(size, size)
    return (1.0 - 2.0 * parity) / np.sqrt(size)


def dense(size: int, block: int) -> np.ndarray:
    """The whole rotation of a last dimension of this size, float64."""
    out, begin = np.zeros((size, size)), 0
    while begin < size:
        m = min(block, 1 << ((size - begin).bit_length() - 1))
        out[begin : begin + m, begin : begin + m] = matrix(m)
        begin += m
    return out


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("block", [1, 2, 32, 128, 1024])
@pytest.mark.parametrize("width", WIDTHS)
def test_equals_the_oracle(backend, width, block, kind):
    rng = np.random.default_rng(width + block)
    for shape in ((width,), (3, width), (2, 3, width)):
        x = (awkward if width % 2 else finite)(rng, shape)
        with np.errstate(all="ignore"):
            want = oracle.hadamard(x, block)
        given_x = x if kind == "numpy" else torch.from_numpy(x)
        guard = Guarded(shape, np.float32, kind)
        assert fk.hadamard(given_x, block, out=guard.array) is guard.array
        assert_same(guard.array, want, f"{shape}")
        guard.check()
        assert_same(fk.hadamard(given_x, block, out=given_x), want, "x over itself")


@pytest.mark.parametrize(("width", "block"), [(128, 128), (300, 128), (7, 128), (64, 16)])
def test_equals_the_dense_matrix(backend, width, block):
    """log2(block) additions and one product round once each: relative 8 * 2^-24 of sum |x|."""
    x = finite(np.random.default_rng(width), (5, width))
    want = x.astype(np.float64) @ dense(width, block).T
    bound = abs(x).astype(np.float64) @ abs(dense(width, block)).T * 9 * 2.0**-24
    assert (abs(fk.hadamard(torch.from_numpy(x), block).numpy() - want) <= bound).all()


@given(width=st.integers(1, 400), power=st.integers(0, 9), seed=st.integers(0, 2**32 - 1))
def test_it_is_orthonormal_and_its_own_inverse(width, power, seed):
    rotation = dense(width, 2**power)
    np.testing.assert_allclose(rotation @ rotation.T, np.eye(width), atol=1e-12)
    x = finite(np.random.default_rng(seed), (2, width))
    once = fk.hadamard(torch.from_numpy(x), 2**power)
    twice = fk.hadamard(once, 2**power).numpy()
    largest = np.linalg.norm(x.astype(np.float64))
    assert (abs(twice - x) <= 2 * (power + 1) * 2.0**-24 * largest * 2 ** (power / 2)).all()
    length = np.linalg.norm(once.numpy().astype(np.float64))
    assert length == pytest.approx(largest, rel=1e-5)
