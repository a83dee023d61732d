"""assemble_gradient: G from the seed, the bits of the oracle, the directions of the probes."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import (
    NOISES,
    SURROGATES,
    VIEWS,
    WIDE,
    Guarded,
    assert_same,
    awkward,
    finite,
    scales,
)

import fogzo_kernels as fk

OPS = ("assemble_gradient", "assemble_gradient_many")
SEED, STEP, TENSOR = 2**63 + 12345, 6, 3


def inputs(view, seed=0, probes=1, make=awkward):
    shape, offset, pitch = view
    rng = np.random.default_rng(seed)
    return (
        make(rng, shape), scales(rng, shape), finite(rng, (probes,)),
        {"offset": offset, "row_pitch": pitch},
    )  # fmt: skip


def call(grad, scale, differences, surrogate, **named):
    arrays = [torch.from_numpy(a) for a in (grad, scale, differences)]
    named = {"seed": SEED, "step": STEP, "tensor": TENSOR, **named}
    return fk.assemble_gradient(*arrays, surrogate, **named)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("probes", [1, 2, 5])
def test_equals_the_oracle(backend, probes, surrogate, noise):
    for number, view in enumerate((*VIEWS, WIDE)):
        grad, scale, differences, place = inputs(view, number, probes)
        gamma, norm = ((0.3, 2.0), (1.0, 0.0), (0.0, 0.7), (1e-9, 1e-31))[number % 4]
        first = (0, 7)[number % 2]
        with np.errstate(all="ignore"):
            want = oracle.assemble(
                grad, scale, differences, surrogate, noise, first,
                seed=SEED, step=STEP, tensor=TENSOR, gamma=gamma, norm=norm, **place,
            )  # fmt: skip
        guard = Guarded(grad.shape, np.float32, "torch")
        named = {"gamma": gamma, "norm": norm, "first_probe": first, "noise": noise, **place}
        assert call(
            grad, scale, differences, surrogate, out=guard.array, **named
        ) is guard.array  # fmt: skip
        assert_same(guard.array, want, f"G of {view}")
        guard.check()
        into = torch.from_numpy(grad.copy())
        got = fk.assemble_gradient(
            into, torch.from_numpy(scale), torch.from_numpy(differences), surrogate,
            seed=SEED, step=STEP, tensor=TENSOR, out=into, **named,
        )  # fmt: skip
        assert_same(got, want, f"G of {view} written over grad")


@pytest.mark.parametrize("a", [2.0**-100, 1e-20, 1e20, 3e38])
def test_scales_at_their_ends(backend, a):
    grad, _, differences, place = inputs(VIEWS[3], 4, 2)
    scale = np.asarray(np.float32(a))
    with np.errstate(all="ignore"):
        want = oracle.assemble(
            grad, scale, differences, "clipped", "published", 0,
            seed=SEED, step=STEP, tensor=TENSOR, gamma=0.3, norm=2.0, **place,
        )  # fmt: skip
    assert_same(call(grad, scale, differences, "clipped", gamma=0.3, norm=2.0, **place), want)


def test_float64_differences_are_rounded_once(backend):
    grad, scale, _, place = inputs(VIEWS[3], 1, make=finite)
    wide = np.array([0.1, 1 / 3])
    named = {"gamma": 0.3, "norm": 2.0, **place}
    got = call(grad, scale, wide, "clipped", **named)
    assert_same(got, call(grad, scale, wide.astype(np.float32), "clipped", **named))


def test_it_uses_the_directions_of_perturb_quantize(backend):
    """With no grid perturb_quantize shows w +- a d; G = D d / (e^2 a) is built on the same d."""
    rng = np.random.default_rng(3)
    grad, scale = finite(rng, (2, 300)), np.asarray(np.float32(0.5))
    named = {"seed": SEED, "step": STEP, "tensor": TENSOR, "gamma": 0.4, "norm": 5.0}
    zero = torch.zeros(2, 300)
    sides = fk.perturb_quantize(
        zero, torch.from_numpy(grad), torch.from_numpy(scale), None, "clipped", **named
    )
    g = call(grad, scale, np.array([2.0], np.float32), "clipped", gamma=0.4, norm=5.0)
    # a = 1/2 and D = 2 round nothing: a side is d / 2, and G = (2 d) (1 / ((e e) a))
    e = np.float32(oracle.radius("clipped"))
    assert_same(g, 4 * sides[0].numpy() * (np.float32(1) / (e * e * np.float32(0.5))))


def test_many_equals_the_loop(backend):
    views = [VIEWS[1], VIEWS[3], VIEWS[4]]
    names = ["clipped", "hardtanh", "identity"]
    columns = [inputs(view, i)[:2] for i, view in enumerate(views)]
    grads, scale_list = ([torch.from_numpy(a) for a in c] for c in zip(*columns, strict=True))
    differences = torch.tensor([0.5, -2.0])
    shared = {"seed": SEED, "step": 1, "gamma": 0.1, "norm": 3.0}
    outs = [torch.full_like(g, torch.nan) for g in grads]
    got = fk.assemble_gradient_many(
        grads, scale_list, differences, names, tensors=[4, 0, 2], outs=outs,
        offsets=[v[1] for v in views], row_pitches=[v[2] for v in views], **shared,
    )  # fmt: skip
    for i, view in enumerate(views):
        want = fk.assemble_gradient(
            grads[i], scale_list[i], differences, names[i], tensor=[4, 0, 2][i],
            offset=view[1], row_pitch=view[2], **shared,
        )  # fmt: skip
        assert got[i] is outs[i]
        assert_same(got[i], want, f"tensor {i}")


def test_numpy_gives_numpy_with_equal_bits(backend):
    grad, scale, differences, place = inputs(VIEWS[3], 2, probes=2)
    named = {"gamma": 0.3, "norm": 2.0, **place}
    want = call(grad, scale, differences, "identity", **named)
    got = fk.assemble_gradient(
        grad, scale, differences, "identity", seed=SEED, step=STEP, tensor=TENSOR, **named
    )
    assert isinstance(got, np.ndarray)
    assert_same(got, want)


def test_infinite_and_nan_gradients_stay_visible(backend):
    grad = np.array([1.0, np.inf, np.nan, -np.inf], np.float32)
    got = call(grad, np.asarray(np.float32(1)), np.ones(1, np.float32), "clipped",
               gamma=0.5, norm=np.inf)  # fmt: skip
    assert got.isnan().tolist() == [False, True, True, True]
