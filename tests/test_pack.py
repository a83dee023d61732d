"""pack and unpack: the byte layout, padding, and the round trip."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import Guarded, assert_same
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("pack", "unpack")
STORED = {1: 1, 2: 2, 3: 4, 4: 4, 5: 8, 6: 8, 7: 8, 8: 8}
SHAPES = ((1,), (7,), (3, 8), (3, 9), (2, 3, 5), (4, 0), (0, 4), (2, 1023), (1, 4097))


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("bits", range(1, 9))
def test_equals_the_oracle(backend, bits, kind):
    rng = np.random.default_rng(bits)
    for shape in SHAPES:
        codes = rng.integers(0, 2**bits, shape).astype(np.uint8)
        want = oracle.pack(codes, STORED[bits])
        given_codes = codes if kind == "numpy" else torch.from_numpy(codes)
        guard = Guarded(want.shape, np.uint8, kind)
        out = fk.Packed(guard.array, STORED[bits], shape)
        assert fk.pack(given_codes, bits, out=out) is out
        assert_same(out.data, want, f"bytes of {shape}")
        guard.check()
        packed = fk.pack(given_codes, bits)
        assert (packed.bits, packed.shape) == (STORED[bits], shape)
        assert_same(packed.data, want)
        guard = Guarded(shape, np.uint8, kind)
        assert fk.unpack(packed, out=guard.array) is guard.array
        assert_same(guard.array, codes, f"codes of {shape}")
        guard.check()


def test_known_bytes(backend):
    """Lowest bits first: 1 + 2 * 4 + 3 * 16 = 57; a row of five starts a new byte."""
    codes = torch.tensor([[1, 2, 3, 0, 2], [3, 3, 3, 3, 1]], dtype=torch.uint8)
    assert fk.pack(codes, 2).data.tolist() == [[57, 2], [255, 1]]
    assert fk.pack(codes, 4).data.tolist() == [[0x21, 0x03, 0x02], [0x33, 0x33, 0x01]]
    assert fk.pack(codes % 2, 1).data.tolist() == [[0b00101], [0b11111]]


@given(
    rows=st.integers(0, 4),
    cols=st.integers(0, 70),
    bits=st.integers(1, 8),
    seed=st.integers(0, 2**32 - 1),
)
def test_round_trip(rows, cols, bits, seed):
    codes = np.random.default_rng(seed).integers(0, 2**bits, (rows, cols)).astype(np.uint8)
    packed = fk.pack(torch.from_numpy(codes), bits)
    assert packed.data.shape == (rows, -(-cols * packed.bits // 8))
    assert_same(fk.unpack(packed), codes)
