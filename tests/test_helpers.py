"""The tests' own tools: a difference is found and named, an overrun is seen."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import Guarded, assert_same, ulps


@pytest.mark.parametrize(
    ("got", "text"),
    [
        ([[1.0, 2.0], [3.0, 5.0]], r"differs in 1 of 4 elements, first at \(1, 1\)"),
        ([[1.0, np.nan], [3.0, 4.0]], r"first at \(0, 1\)"),
        ([1.0, 2.0], r"has shape \(2,\), expected \(2, 2\)"),
    ],
)
def test_the_first_difference_is_named(got, text):
    with pytest.raises(AssertionError, match=text):
        assert_same(np.array(got), np.array([[1.0, 2.0], [3.0, 4.0]]))


def test_bits_are_compared_not_values():
    with pytest.raises(AssertionError, match="first at"):
        assert_same(np.array([-0.0], np.float32), np.array([0.0], np.float32))
    with pytest.raises(AssertionError, match="has dtype float64"):
        assert_same(np.zeros(1), np.zeros(1, np.float32))
    quiet = np.array([0x7FC00000, 0xFFC00001], np.uint32).view(np.float32)
    assert_same(torch.from_numpy(quiet), quiet[::-1].copy())


def test_an_overrun_is_seen():
    guard = Guarded((3,), np.float32)
    assert np.isnan(guard.array).all()
    guard.array[...] = 1
    guard.check()
    guard.raw[guard.GUARD + 12] = 0
    with pytest.raises(AssertionError, match="beside the output"):
        guard.check()


def test_ulps():
    assert ulps(np.float32(1), 1.0) == 0
    assert ulps(np.nextafter(np.float32(1), np.float32(2)), 1.0) == 1
