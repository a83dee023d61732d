"""perturb_quantize: values, codes, packed, flips and counts against the oracle, bit for bit."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import (
    PAIRS,
    VIEWS,
    WIDE,
    Guarded,
    as_kind,
    assert_same,
    awkward,
    finite,
    pair_id,
    refused,
    scales,
    taken,
)
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("perturb_quantize", "perturb_quantize_many")
SEED, STEP, TENSOR = 0x0123456789ABCDEF, 4, 9
MID = fk.Grid("mid-rise", 2)


def inputs(view, seed=0, odd=True):
    shape, offset, pitch = view
    rng = np.random.default_rng(seed)
    scale = scales(rng, shape)
    make = awkward if odd else finite
    w, grad = make(rng, shape), make(rng, shape)
    with np.errstate(over="ignore"):
        rows, cols = oracle.view(shape)
        w = (w.reshape(rows, cols) * oracle.spread(scale, rows, cols)).reshape(shape)
    return w, grad, scale, {"offset": offset, "row_pitch": pitch}


def expected(w, grad, scale, grid, surrogate, noise, probes, first, gamma, norm, place):
    """Perturbed values in bins, codes, unperturbed codes."""
    with np.errstate(all="ignore"):
        sides = oracle.perturbed(
            w, grad, scale, surrogate, noise, probes, first,
            seed=SEED, step=STEP, tensor=TENSOR, gamma=gamma, norm=norm, **place,
        )  # fmt: skip
        codes = oracle.quantized_sides(sides, grid.kind, grid.bits, w.shape)
        x, a = oracle.bins(w, scale)
        base = oracle.code(x, grid.kind, grid.bits).reshape(w.shape)
        values = [(a * oracle.value(s, grid.kind, grid.bits)).reshape(w.shape) for s in sides]
    return np.stack(values), codes, base


def call(w, grad, scale, grid, surrogate, **named):
    tensors = [torch.from_numpy(a) for a in (w, grad, scale)]
    named = {"seed": SEED, "step": STEP, "tensor": TENSOR, **named}
    return fk.perturb_quantize(*tensors, grid, surrogate, **named)


@pytest.mark.parametrize("pair", PAIRS, ids=pair_id)
def test_every_form_equals_the_oracle(backend, pair):
    grid, surrogate, noise = pair
    number = PAIRS.index(pair)
    for n in range(3):
        view = VIEWS[(number + 3 * n) % len(VIEWS)]
        w, grad, scale, place = inputs(view, seed=number * 3 + n)
        gamma = (0.3, 1.0, 0.0)[n]
        first, norm = (0, 2**32 - 2)[n % 2], (3.0, 1.7, 1e30)[n]
        named = {"noise": noise, "gamma": gamma, "norm": norm, "first_probe": first, "probes": 2}
        values, codes, base = expected(
            w, grad, scale, grid, surrogate, noise, 2, first, gamma, norm, place
        )
        shape = (4, *w.shape)
        guard, count = Guarded(shape, np.float32, "torch"), Guarded((4,), np.int64, "torch")
        got = call(
            w, grad, scale, grid, surrogate, **named, **place,
            out=guard.array, flip_count=count.array,
        )  # fmt: skip
        assert got is guard.array
        assert_same(got, values, f"values of {view}")
        flips = (codes != base).reshape(4, -1).sum(1).astype(np.int64)
        assert_same(count.array, flips, f"flip_count of {view}")
        guard.check()
        count.check()
        guard = Guarded(shape, np.uint8, "torch")
        call(w, grad, scale, grid, surrogate, **named, **place, form="codes", out=guard.array)
        assert_same(guard.array, codes, f"codes of {view}")
        guard.check()
        packed = oracle.pack(codes, grid.storage_bits)
        guard = Guarded(packed.shape, np.uint8, "torch")
        out = fk.Packed(guard.array, grid.storage_bits, shape)
        named |= {"form": "packed", "out": out, **place}
        if not refused(call, w, grad, scale, grid, surrogate, **named):
            assert_same(guard.array, packed, f"packed of {view}")
        guard.check()


@pytest.mark.parametrize("sides", ["both", "plus"])
@pytest.mark.parametrize("noise", ["published", "rademacher"])
def test_more_than_one_rademacher_tile(backend, noise, sides):
    w, grad, scale, place = inputs(WIDE)
    values, _, _ = expected(w, grad, scale, MID, "clipped", noise, 1, 0, 0.5, 2.0, place)
    got = call(
        w, grad, scale, MID, None, noise=noise, sides=sides, gamma=0.5, norm=2.0, **place
    )  # fmt: skip
    assert_same(got, values if sides == "both" else values[::2])


@pytest.mark.parametrize("form", ["values", "codes", "packed"])
def test_plus_is_every_second_side_and_probes_are_numbered(backend, form):
    w, grad, scale, place = inputs(((3, 129), 7, 200))
    named = {"gamma": 0.2, "norm": 4.0, "form": form, **place}

    def data(result):
        return result.data if form == "packed" else result

    both = data(call(w, grad, scale, MID, "clipped", probes=3, first_probe=5, **named))
    plus = data(
        call(w, grad, scale, MID, "clipped", probes=3, first_probe=5, sides="plus", **named)
    )
    assert_same(plus, both[::2].contiguous())
    for i in range(3):
        one = data(call(w, grad, scale, MID, "clipped", first_probe=5 + i, **named))
        assert_same(one, both[2 * i : 2 * i + 2].contiguous(), f"probe {i}")


@pytest.mark.parametrize("norm", [0.0, 2.0**-101, 2.0**-100, 1e-30, float("inf"), float("nan")])
@pytest.mark.parametrize("gamma", [0.0, 1e-12, 1 - 1e-9, 1.0])
def test_norms_and_gammas_at_their_ends(backend, gamma, norm):
    w, grad, scale, place = inputs(((2, 130), 0, None), seed=5)
    values, _, _ = expected(w, grad, scale, MID, "identity", "published", 1, 0, gamma, norm, place)
    assert_same(call(w, grad, scale, MID, "identity", gamma=gamma, norm=norm), values)


@pytest.mark.parametrize("a", [2.0**-100, 1.3 * 2.0**-99, 1e-20, 1e20, 3e38])
@pytest.mark.parametrize("surrogate", ["clipped", "identity"])
def test_scales_at_their_ends(backend, surrogate, a):
    """1/a goes from 2^100 down to a subnormal; a * value may overflow to infinity, as it should."""
    rng = np.random.default_rng(7)
    scale = np.asarray(np.float32(a))
    with np.errstate(over="ignore"):
        w, grad = awkward(rng, (3, 130)) * scale, awkward(rng, (3, 130))
    named = {"gamma": 0.4, "norm": 2.0}
    place = {"offset": 0, "row_pitch": None}
    values, codes, _ = expected(
        w, grad, scale, MID, surrogate, "published", 1, 0, 0.4, 2.0, place
    )  # fmt: skip
    assert_same(call(w, grad, scale, MID, surrogate, **named), values)
    assert_same(call(w, grad, scale, MID, surrogate, form="codes", **named), codes)


@pytest.mark.parametrize("bits", [2, 4, 8])
@pytest.mark.parametrize("kind", ["mid-tread", "mid-rise"])
@pytest.mark.parametrize("at", [0, 97, 130])  # in whole vectors, and in the rest of a row
def test_one_value_beyond_the_integers_on_one_side(backend, at, kind, bits):
    """-0x80000000 is what the processor gives for it, and for NaN: the row is rounded anew."""
    grid = fk.Grid(kind, bits)
    place = {"offset": 0, "row_pitch": None}
    huge = [-1e30, -127.6, -200.0, 127.0, 3e9, 1e30, np.inf, np.nan]
    alone = [1.7e10, -1.7e10]  # d = +-1e9: of w = 1.5e9 one side is beyond 2^31, the other is not
    rows = 2 * len(huge) + len(alone)
    w, grad = finite(np.random.default_rng(at), (rows, 131)), np.zeros((rows, 131), np.float32)
    w[:, at] = [*huge, *[0.0] * len(huge), *[1.5e9] * len(alone)]
    grad[:, at] = [*[0.0] * len(huge), *huge, *alone]
    scale = np.ones((rows, 1), np.float32)
    _, codes, _ = expected(w, grad, scale, grid, "identity", "published", 2, 0, 0.5, 1.0, place)
    named = {"gamma": 0.5, "norm": 1.0, "form": "codes", "probes": 2}
    assert_same(call(w, grad, scale, grid, "identity", **named), codes)
    plus = call(w, grad, scale, grid, "identity", sides="plus", **named)
    assert_same(plus, codes[::2])


@pytest.mark.parametrize("form", ["values", "codes"])
def test_numbers_may_be_0_dim_arrays(backend, form):
    w, grad, scale, place = inputs(((3, 129), 7, 200))
    want = call(w, grad, scale, MID, "clipped", gamma=0.2, norm=4.0, form=form, **place)
    seed = int(np.int64(SEED))
    tensors = {
        "seed": torch.tensor(seed), "step": torch.tensor(STEP), "tensor": np.int64(TENSOR),
        "gamma": torch.tensor(0.2, dtype=torch.float64), "norm": torch.tensor(4.0),
    }  # fmt: skip
    assert_same(call(w, grad, scale, MID, "clipped", form=form, **tensors, **place), want)
    arrays = {name: np.asarray(value) for name, value in tensors.items()} | {"tensor": TENSOR}
    got = fk.perturb_quantize(w, grad, scale, MID, "clipped", form=form, **arrays, **place)
    assert_same(got, want)


def test_no_grid_gives_w_plus_and_minus(backend):
    w, grad, scale, place = inputs(((3, 129), 5, 300), odd=False)
    got = call(w, grad, scale, None, "identity", gamma=0.3, norm=2.0, probes=2, **place)
    assert got.shape == (4, 3, 129)
    a = oracle.spread(scale, 3, 129).astype(np.float64)
    for i in range(2):
        d = oracle.direction(
            grad, scale, "identity", seed=SEED, step=STEP, tensor=TENSOR, probe=i,
            gamma=0.3, norm=2.0, **place,
        )  # fmt: skip
        for side, sign in ((2 * i, 1), (2 * i + 1, -1)):
            exact = w.astype(np.float64) + sign * a * d
            # x + d in bins and its product, or w + a * d: either rounds at most three times.
            bound = 3 * 2.0**-24 * (abs(w) + abs(a * d)) * 1.01
            assert (abs(got[side].numpy() - exact) <= bound).all()


def test_flips_are_the_codes_that_changed_sorted(backend):
    w, grad, scale, place = inputs(((5, 129), 77, 500))
    named = {"gamma": 0.4, "norm": 9.0, "probes": 2, **place}
    flips = taken(call, w, grad, scale, MID, "clipped", form="flips", **named)
    _, codes, base = expected(
        w, grad, scale, MID, "clipped", "published", 2, 0, 0.4, 9.0, place
    )  # fmt: skip
    assert_same(flips.base, base)
    for side in range(4):
        changed = np.flatnonzero(codes[side] != base)
        n = int(flips.count[side])
        assert n == len(changed) > 0
        assert_same(flips.index[side, :n], changed.astype(np.int64), f"index of side {side}")
        assert_same(flips.code[side, :n], codes[side].reshape(-1)[changed], f"code of side {side}")
        assert (flips.index[side, n:] == -1).all()
        assert (flips.code[side, n:] == 0).all()
    capacity = flips.index.shape[1] + 3
    guards = [
        Guarded(w.shape, np.uint8, "torch"),
        Guarded((4, capacity), np.int64, "torch"),
        Guarded((4, capacity), np.uint8, "torch"),
        Guarded((4,), np.int64, "torch"),
    ]
    into = fk.Flips(*(guard.array for guard in guards))
    assert call(w, grad, scale, MID, "clipped", form="flips", out=into, **named) is into
    assert_same(into.count, flips.count)
    assert_same(into.index[:, :-3].contiguous(), flips.index)
    assert (into.index[:, -3:] == -1).all()
    for guard in guards:
        guard.check()


def test_many_equals_the_loop(backend):
    views = [VIEWS[1], VIEWS[3], VIEWS[4]]
    grids = [fk.Grid("sign"), MID, fk.Grid("mid-tread", 4)]
    arrays = [[torch.from_numpy(a) for a in inputs(v, i)[:3]] for i, v in enumerate(views)]
    lists = [list(column) for column in zip(*arrays, strict=True)]
    shared = {"seed": SEED, "step": 1, "probes": 2, "gamma": 0.1, "norm": 3.0, "form": "codes"}
    counts = torch.full((3, 4), -7)
    got = fk.perturb_quantize_many(
        *lists, grids, [None, "identity", "trust"], tensors=[4, 0, 2**32 - 2],
        offsets=[v[1] for v in views], row_pitches=[v[2] for v in views], flip_counts=counts,
        **shared,
    )  # fmt: skip
    for i, (view, named) in enumerate(zip(views, [None, "identity", "trust"], strict=True)):
        count = torch.full((4,), -7)
        want = fk.perturb_quantize(
            *arrays[i], grids[i], named, tensor=[4, 0, 2**32 - 2][i], offset=view[1],
            row_pitch=view[2], flip_count=count, **shared,
        )  # fmt: skip
        assert_same(got[i], want, f"tensor {i}")
        assert_same(counts[i], count, f"flip_count {i}")


def test_counts_of_tensors_without_a_grid_are_zero(backend):
    w = torch.linspace(-1, 1, 64).view(2, 32)
    one = torch.tensor(1.0)
    counts = torch.full((2, 2), -7)
    fk.perturb_quantize_many(
        [w, w], [w, w], [one, one], [None, MID], ["identity", None], tensors=[0, 1], seed=SEED,
        step=0, gamma=0.5, norm=1.0, flip_counts=counts,
    )  # fmt: skip
    assert counts[0].tolist() == [0, 0]
    assert (counts[1] > 0).all()
    counts = torch.full((1, 2), -7)
    fk.perturb_quantize_many(
        [w], [w], [one], None, "identity", tensors=[0], seed=SEED, step=0, gamma=0.5, norm=1.0,
        flip_counts=counts,
    )  # fmt: skip
    assert counts.tolist() == [[0, 0]]


def test_tensors_of_one_shape_are_perturbed_differently(backend):
    w = torch.zeros(2, 256)
    got = fk.perturb_quantize_many(
        [w, w], [w, w], [torch.tensor(1.0)] * 2, MID, tensors=[0, 1], seed=1, step=0,
        gamma=1.0, norm=0.0, form="codes",
    )  # fmt: skip
    assert (got[0] != got[1]).float().mean() > 0.3


@given(
    rows=st.integers(1, 4),
    cols=st.integers(1, 150),
    offset=st.integers(0, 40000),
    extra=st.integers(0, 3000),
    data=st.data(),
)
def test_a_shard_is_a_slice_of_the_whole(rows, cols, offset, extra, data):
    pitch = cols + extra
    r, c = data.draw(st.integers(0, rows - 1)), data.draw(st.integers(0, cols - 1))
    rng = np.random.default_rng(rows * cols)
    w, grad, scale = finite(rng, (rows, cols)), finite(rng, (rows, cols)), np.float32(0.5)
    named = {"gamma": 0.3, "norm": 2.0, "form": "codes", "row_pitch": pitch}
    scale = np.asarray(scale)
    whole = call(w, grad, scale, MID, "clipped", offset=offset, **named)
    w, grad = np.ascontiguousarray(w[r:, c:]), np.ascontiguousarray(grad[r:, c:])
    part = call(w, grad, scale, MID, "clipped", offset=offset + r * pitch + c, **named)
    assert_same(part, whole[:, r:, c:].contiguous())


@pytest.mark.parametrize("form", ["values", "codes", "packed", "flips"])
def test_numpy_gives_numpy_with_equal_bits(backend, form):
    w, grad, scale, place = inputs(((3, 129), 7, 200))
    named = {"gamma": 0.2, "norm": 4.0, "form": form, **place}
    want = taken(call, w, grad, scale, MID, "clipped", **named)
    named |= {"seed": SEED, "step": STEP, "tensor": TENSOR}
    kept = [a.copy() for a in (w, grad, scale)]
    got = fk.perturb_quantize(w, grad, scale, MID, "clipped", **named)
    if form in ("packed", "flips"):
        names = ("data",) if form == "packed" else ("base", "index", "code", "count")
        pairs = [(getattr(got, name), getattr(want, name)) for name in names]
    else:
        pairs = [(got, want)]
    for one, other in pairs:
        assert isinstance(one, np.ndarray)
        assert_same(one, other)
    for before, after in zip(kept, (w, grad, scale), strict=True):
        assert_same(after, before, "an input")


def test_strided_inputs_are_read_by_their_strides(backend):
    w, grad, scale, _ = inputs(((6, 40), 0, None))
    named = {"gamma": 0.2, "norm": 4.0, "form": "codes"}
    want = call(np.ascontiguousarray(w[::2, ::2]), np.ascontiguousarray(grad[::2, ::2]),
                np.asarray(scale.reshape(-1)[0]), MID, "clipped", **named)  # fmt: skip
    got = fk.perturb_quantize(
        as_kind(w, "torch")[::2, ::2], as_kind(grad, "torch")[::2, ::2],
        torch.tensor(scale.reshape(-1)[0]), MID, "clipped",
        seed=SEED, step=STEP, tensor=TENSOR, **named,
    )  # fmt: skip
    assert_same(got, want)
