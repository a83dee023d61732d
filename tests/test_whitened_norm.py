"""whitened_norm: one global norm, within an ulp of float64 whatever the order of the sum."""

from __future__ import annotations

import math

import numpy as np
import oracle
import pytest
import torch
from helpers import NOISES, SURROGATES, VIEWS, Guarded, finite, scales, ulps
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("whitened_norm",)


def exact(grads, scale_list, names, noise):
    total = math.fsum(
        float(np.sum(oracle.whitened(g, a, name, noise).astype(np.float64) ** 2))
        for g, a, name in zip(grads, scale_list, names, strict=True)
    )
    return np.float64(math.sqrt(total))


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("kind", ["torch", "numpy"])
def test_equals_float64_within_an_ulp(backend, kind, noise):
    rng = np.random.default_rng(1)
    shapes = [view[0] for view in VIEWS] + [(3, 50001)]
    grads = [finite(rng, shape) for shape in shapes]
    scale_list = [scales(rng, shape) for shape in shapes]
    names = [SURROGATES[i % 6] for i in range(len(shapes))]
    arrays = [grads, scale_list]
    if kind == "torch":
        arrays = [[torch.from_numpy(a) for a in column] for column in arrays]
    guard = Guarded((), np.float32, kind)
    got = fk.whitened_norm(*arrays, names, noise=noise, out=guard.array)
    assert got is guard.array
    assert got.shape == ()
    assert ulps(got, exact(grads, scale_list, names, noise)) <= 1
    guard.check()
    one_name = fk.whitened_norm(*arrays, "clipped", noise=noise)
    want = exact(grads, scale_list, ["clipped"] * len(shapes), noise)
    assert ulps(one_name, want) <= 1
    assert isinstance(one_name, torch.Tensor if kind == "torch" else np.ndarray | np.generic)


@given(seed=st.integers(0, 2**32 - 1), count=st.integers(1, 4), power=st.integers(-40, 40))
def test_any_magnitude(seed, count, power):
    """Sums of squares are float64: neither 1e-12 nor 1e12 over- or underflows."""
    rng = np.random.default_rng(seed)
    grads = [finite(rng, (3, int(rng.integers(1, 90))), 2.0**power) for _ in range(count)]
    scale_list = [scales(rng, g.shape) for g in grads]
    got = fk.whitened_norm(
        [torch.from_numpy(g) for g in grads], [torch.from_numpy(a) for a in scale_list], "hardtanh"
    )
    assert ulps(got, exact(grads, scale_list, ["hardtanh"] * count, "published")) <= 1


def test_one_global_norm_not_one_for_each_tensor(backend):
    g, a = torch.tensor([[3.0, 4.0]]), torch.tensor(2.0)
    one = fk.whitened_norm([g], [a], "hardtanh", noise="rademacher")
    four = fk.whitened_norm([g] * 4, [a] * 4, "hardtanh", noise="rademacher")
    assert one.item() == 10.0
    assert four.item() == 20.0


def test_non_finite_gradients_show(backend):
    a = torch.tensor(1.0)
    assert fk.whitened_norm([torch.tensor([math.inf, 1.0])], [a], "clipped").item() == math.inf
    assert math.isnan(fk.whitened_norm([torch.tensor([math.nan])], [a], "clipped").item())
    assert fk.whitened_norm([torch.zeros(3)], [a], "clipped").item() == 0.0
