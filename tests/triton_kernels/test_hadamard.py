"""Triton's hadamard in the interpreter: the butterflies bit for bit, in one and two passes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import Guarded, assert_same, awkward, finite

import fogzo_kernels as fk


@pytest.mark.parametrize("block", [1, 2, 32, 128, 1024])
@pytest.mark.parametrize("width", [0, 1, 2, 3, 44, 127, 128, 129, 300, 1031])
def test_equals_the_oracle(backend, width, block):
    rng = np.random.default_rng(width + block)
    for shape in ((width,), (3, width), (2, 3, width)):
        x = (awkward if width % 2 else finite)(rng, shape)
        with np.errstate(all="ignore"):
            want = oracle.hadamard(x, block)
        guard = Guarded(shape, np.float32, "torch")
        assert fk.hadamard(torch.from_numpy(x), block, out=guard.array) is guard.array
        assert_same(guard.array, want, f"{shape}")
        guard.check()
        over = torch.from_numpy(x.copy())
        assert_same(fk.hadamard(over, block, out=over), want, "x over itself")


def test_a_transposed_input(backend):
    x = finite(np.random.default_rng(0), (40, 6))
    assert_same(fk.hadamard(torch.from_numpy(x).T, 8), oracle.hadamard(x.T.copy(), 8))
