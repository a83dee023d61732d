"""probe_matmul: all probe sides against float64, for every kind of codes and activations."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import GRIDS, Guarded, assert_same, finite, grid_id, scales, taken
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("probe_matmul",)
SHAPES = ((1, 1, 1), (2, 3, 7), (5, 4, 86), (3, 9, 129), (8, 17, 256), (0, 3, 8), (3, 0, 8))


def dense(codes, scale, grid):
    """float64 weights [P, N, K] of codes [P, N, K]."""
    low, _, step, _ = oracle.levels(grid.kind, grid.bits)
    a = oracle.spread(scale, *codes.shape[1:]).astype(np.float64)
    return a * (low + step * codes.astype(np.float64))


def bound(x, w, bias, size):
    """Accumulating K products in float32, in any order, and the scale, bias and final roundings.

    |error| <= (K + 6) 2^-24 * sum |x| |w|, with twice that allowed; the output's rounding on top.
    """
    total = np.einsum("pmk,pnk->pmn", abs(x), abs(w)) + abs(bias)
    return 2 * (size + 6) * 2.0**-24 * total


def check(got, x, w, bias, rounding=0.0):
    want = np.einsum("pmk,pnk->pmn", x, w) + bias
    limit = bound(x, w, bias, x.shape[-1]) + rounding * abs(want)
    error = abs(got.float().numpy() - want)
    assert got.shape == want.shape
    assert (error <= limit).all(), f"{(error / limit).max()} of the bound"


def codes_of(rng, grid, shape):
    return torch.from_numpy(rng.integers(0, grid.levels, shape).astype(np.uint8))


@pytest.mark.parametrize("shared", [True, False], ids=["shared", "each"])
@pytest.mark.parametrize("sides", [None, 1, 4])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_codes_and_packed_equal_float64(backend, grid, sides, shared):
    rng = np.random.default_rng(1)
    for m, n, k in SHAPES:
        p = sides or (1 if shared else 3)
        codes = codes_of(rng, grid, (n, k) if sides is None else (p, n, k))
        scale = scales(rng, (n, k))
        bias = finite(rng, (n,)) if k % 2 else None
        x = torch.from_numpy(finite(rng, (m, k) if shared else (p, m, k)))
        wide = dense(codes.expand(p, n, k).numpy(), scale, grid)
        guard = Guarded((p, m, n), np.float32, "torch")
        arguments = (torch.from_numpy(scale), grid, None if bias is None else torch.tensor(bias))
        got = taken(fk.probe_matmul, x, codes, *arguments, out=guard.array)
        assert got is guard.array
        guard.check()
        check(got, x.expand(p, m, k).double().numpy(), wide, 0.0 if bias is None else bias)
        with fk.use_backend("auto"):
            narrow = fk.pack(codes, grid.code_bits)
        packed = taken(fk.probe_matmul, x, narrow, *arguments)
        check(packed, x.expand(p, m, k).double().numpy(), wide, 0.0 if bias is None else bias)


@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_int8_activations(backend, grid):
    rng = np.random.default_rng(2)
    for m, n, k in SHAPES:
        codes = codes_of(rng, grid, (2, n, k))
        scale = scales(rng, (n, k))
        x = rng.integers(-127, 128, (2, m, k)).astype(np.int8)
        x_scale = np.exp(finite(rng, (2, m)))
        got = taken(
            fk.probe_matmul, torch.from_numpy(x), codes, torch.from_numpy(scale), grid,
            x_scale=torch.from_numpy(x_scale),
        )  # fmt: skip
        assert got.dtype == torch.float32
        wide = x * x_scale[..., None].astype(np.float64)
        check(got, wide, dense(codes.numpy(), scale, grid), 0.0)


def test_bfloat16_activations(backend):
    """The output rounds to bfloat16: 2^-8 relative on top."""
    rng, grid = np.random.default_rng(3), fk.Grid("mid-rise", 2)
    for m, n, k in SHAPES:
        codes, scale = codes_of(rng, grid, (2, n, k)), scales(rng, (n, k))
        x = torch.from_numpy(finite(rng, (m, k))).bfloat16()
        got = taken(fk.probe_matmul, x, codes, torch.from_numpy(scale), grid)
        assert got.dtype == torch.bfloat16
        wide = x.double().expand(2, m, k).numpy()
        check(got, wide, dense(codes.numpy(), scale, grid), 0.0, 2.0**-8)


@pytest.mark.parametrize("grid", [GRIDS[0], fk.Grid("mid-rise", 2)], ids=grid_id)
def test_flips_equal_their_codes(backend, grid):
    rng = np.random.default_rng(4)
    w, g = (torch.from_numpy(finite(rng, (7, 86))) for _ in range(2))
    scale = torch.tensor(0.5)
    named = {"seed": 1, "step": 0, "tensor": 0, "probes": 2, "gamma": 0.05, "norm": 9.0}
    with fk.use_backend("auto"):
        codes = fk.perturb_quantize(w, g, scale, grid, form="codes", **named)
        flips = fk.perturb_quantize(w, g, scale, grid, form="flips", **named)
    x = torch.from_numpy(finite(rng, (3, 86)))
    got = taken(fk.probe_matmul, x, flips, scale, grid)
    check(got, x.double().expand(4, 3, 86).numpy(), dense(codes.numpy(), scale.numpy(), grid), 0.0)


@given(
    m=st.integers(1, 6), n=st.integers(1, 9), k=st.integers(1, 140), p=st.integers(1, 4),
    number=st.integers(0, len(GRIDS) - 1), seed=st.integers(0, 2**32 - 1),
)  # fmt: skip
def test_any_shape(m, n, k, p, number, seed):
    rng, grid = np.random.default_rng(seed), GRIDS[number]
    codes, scale = codes_of(rng, grid, (p, n, k)), scales(rng, (n, k))
    x = finite(rng, (m, k))
    got = fk.probe_matmul(torch.from_numpy(x), codes, torch.from_numpy(scale), grid)
    wide = np.broadcast_to(x.astype(np.float64), (p, m, k))
    check(got, wide, dense(codes.numpy(), scale, grid), 0.0)


def test_a_call_like_one_before_is_refused_as_the_first():
    """Checks of shapes are kept from call to call: a change of any one argument must show."""
    rng, grid = np.random.default_rng(6), fk.Grid("mid-rise", 2)
    good = {
        "x": torch.zeros((4, 8), dtype=torch.int8),
        "codes": codes_of(rng, grid, (3, 8)),
        "scale": torch.ones((3, 1)),
        "bias": torch.zeros(3),
        "x_scale": torch.ones(4),
        "out": torch.empty((1, 4, 3)),
    }
    changes = {
        "x": [torch.zeros((4, 9), dtype=torch.int8), torch.zeros((4, 8), dtype=torch.uint8)],
        "codes": [torch.zeros((3, 8), dtype=torch.int8), fk.pack(good["codes"], 4)],
        "scale": [torch.ones((4, 1)), torch.ones((3, 1), dtype=torch.float64)],
        "bias": [torch.zeros(4), torch.zeros(3, dtype=torch.float64)],
        "x_scale": [None, torch.ones(3), torch.ones(4, dtype=torch.float64)],
        "out": [
            torch.empty((1, 4, 4)),
            torch.empty((1, 4, 3), dtype=torch.float64),
            torch.empty((1, 4, 6))[..., ::2],
            good["scale"].expand(3, 4).T[None],
            np.empty((1, 4, 3), np.float32),
        ],
    }
    assert fk.probe_matmul(**good, grid=grid) is good["out"]
    for name, values in changes.items():
        for value in values:
            with pytest.raises((ValueError, TypeError), match="^probe_matmul: .*, expected "):
                fk.probe_matmul(**{**good, name: value}, grid=grid)
    packed = {**good, "codes": fk.pack(good["codes"], 2)}
    fk.probe_matmul(**packed, grid=grid)
    with pytest.raises(ValueError, match="codes.bits is 2, expected 4 for"):
        fk.probe_matmul(**packed, grid=fk.Grid("mid-rise", 4))
    memory = torch.ones(12)
    good |= {"scale": memory[:3].view(3, 1), "out": memory.view(1, 4, 3)}
    with pytest.raises(ValueError, match="out overlaps scale in memory"):
        fk.probe_matmul(**good, grid=grid)


def test_flips_like_others_before_are_refused_as_the_first():
    """Their room alone may be another one from call to call."""
    grid, x, scale = fk.Grid("mid-rise", 2), torch.ones(4, 8), torch.ones(())
    good = {
        "base": torch.zeros((3, 8), dtype=torch.uint8),
        "index": torch.tensor([[1, 5], [2, 3]]),
        "code": torch.tensor([[3, 3], [1, 1]], dtype=torch.uint8),
        "count": torch.tensor([2, 1]),
    }
    changes = {
        "base": [torch.zeros(24, dtype=torch.uint8), torch.zeros(3, 8), None],
        "index": [good["index"].int(), good["index"][0], good["index"][:1], [[1, 5], [2, 3]], None],
        "code": [good["code"].int(), good["code"][:, :1], good["code"].numpy(), None],
        "count": [good["count"].int(), good["count"][:1], good["count"][None], None],
    }
    want = fk.probe_matmul(x, fk.Flips(**good), scale, grid)
    for name, values in changes.items():
        for value in values:
            with pytest.raises((ValueError, TypeError), match=r"^probe_matmul: .*, expected "):
                fk.probe_matmul(x, fk.Flips(**{**good, name: value}), scale, grid)
    wide = {name: torch.nn.functional.pad(good[name], (0, 3)) for name in ("index", "code")}
    assert_same(fk.probe_matmul(x, fk.Flips(**{**good, **wide}), scale, grid), want)
    with pytest.raises(ValueError, match=r"codes.index has shape \(2, 2\), expected \(sides, cap"):
        fk.probe_matmul(x, fk.Flips(**{**good, "count": torch.tensor([2])}), scale, grid)


def test_numpy_gives_numpy_with_equal_bits(backend):
    rng, grid = np.random.default_rng(5), fk.Grid("mid-rise", 2)
    codes, scale, x = codes_of(rng, grid, (2, 5, 43)), scales(rng, (5, 43)), finite(rng, (4, 43))
    want = fk.probe_matmul(torch.from_numpy(x), codes, torch.from_numpy(scale), grid)
    got = fk.probe_matmul(x, codes.numpy(), scale, grid)
    assert isinstance(got, np.ndarray)
    assert_same(got, want)
