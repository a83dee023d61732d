"""Every CUDA kernel against the reference, its threads forward, backward and shuffled.

What a kernel without one of its barriers reads depends on that order.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_same, awkward, finite, ulps

import fogzo_kernels as fk

MID, SIGN, WIDE = fk.Grid("mid-rise", 2), fk.Grid("sign"), fk.Grid("mid-tread", 5)
WHERE = {"seed": 2**64 - 3, "step": 2**32 - 1, "gamma": 0.3, "norm": 4.0}
# shape, offset, row_pitch, scale: where a thread moves 16 bytes, and what just fails to let it
VIEWS = (
    ((8, 256), 0, None, (8, 1)),
    ((3, 512), 1024, None, (3, 4, 1)),
    ((4, 256), 2048, 512, (4, 1)),
    ((5, 64), 48, 80, ()),
    ((6, 264), 8, 272, (6, 1)),
    ((3, 130), 6, 132, (3, 65, 1)),
    ((2, 5000), 4, None, (2, 40, 1)),
    ((3, 3, 16), 0, None, (3, 3, 1)),
    ((2, 3, 5), 1, 16, ()),
)


def tensors(shape, scale, seed=0, make=finite):
    rng = np.random.default_rng(seed)
    w, g = make(rng, shape), finite(rng, shape)
    a = np.float32(0.25) * rng.integers(1, 5, scale).astype(np.float32)
    return torch.from_numpy(w), torch.from_numpy(g), torch.as_tensor(a)


def both(call):
    """What the emulated kernels give and what the reference gives."""
    with fk.use_backend("cuda"):
        got = call()
    with fk.use_backend("reference"):
        return got, call()


def same(call, what):
    got, want = both(call)
    parts = ("base", "index", "code", "count") if isinstance(got, fk.Flips) else ("data",)
    if isinstance(got, torch.Tensor):
        return assert_same(got, want, what)
    for part in parts:
        assert_same(getattr(got, part), getattr(want, part), f"{part} of {what}")


@pytest.mark.parametrize("view", VIEWS, ids=str)
def test_probing_in_every_form(order, view):
    shape, offset, pitch, scale = view
    w, g, a = tensors(shape, scale, make=awkward)
    place = {"tensor": 2**32 - 2, "offset": offset, "row_pitch": pitch, **WHERE}
    for number, form in enumerate(("values", "codes", "packed", "flips")):
        for grid, surrogate in (
            (MID, None),
            (SIGN, "approx_sign"),
            (WIDE, "trust"),
            (SIGN, "tanh"),
        ):
            noise = ("published", "rademacher")[number % 2]
            named = {"form": form, "noise": noise, "probes": 2, **place}
            same(lambda n=named, d=grid, s=surrogate: fk.perturb_quantize(w, g, a, d, s, **n), form)
    same(lambda: fk.perturb_quantize(w, g, a, None, "clipped", **place), "no grid")
    d = torch.tensor([0.5, -0.25, 3.0])
    for surrogate in ("clipped", "tanh", "approx_sign"):
        same(lambda s=surrogate: fk.assemble_gradient(g, a, d, s, **place), f"G of {surrogate}")


def test_many_tensors_of_every_noise(order):
    """More than a table of the emulator holds, of four kinds of noise, an empty one among them."""
    shapes = ((4, 33), (0, 5), (2, 1024), (3, 7), (1, 1030), (2, 3, 3, 3), (5, 40), (2, 64))
    surrogates = [
        "hardtanh",
        "tanh",
        "approx_sign",
        "hardtanh",
        "tanh",
        "hardtanh",
        "trust",
        "tanh",
    ]
    data = [tensors(shape, (), seed) for seed, shape in enumerate(shapes)]
    ws, gs, scales = ([one[i] for one in data] for i in range(3))
    named = {"tensors": list(range(len(shapes))), **WHERE}
    counts = [torch.full((len(shapes), 4), -1) for _ in range(2)]
    kept = list(counts)

    def codes():
        return fk.perturb_quantize_many(
            ws,
            gs,
            scales,
            SIGN,
            surrogates,
            form="codes",
            probes=2,
            flip_counts=counts.pop(),
            **named,
        )

    for got, want in zip(*both(codes), strict=True):
        assert_same(got, want, "codes")
    assert_same(kept[1], kept[0], "flip_counts")
    d = torch.tensor([0.5, -2.0])
    for got, want in zip(
        *both(lambda: fk.assemble_gradient_many(gs, scales, d, surrogates, **named)), strict=True
    ):
        assert_same(got, want, "gradient")
    got, want = both(lambda: fk.whitened_norm(gs, scales, "hardtanh"))
    assert ulps(got, want.double()) <= 1


def test_sums_of_many_blocks(order):
    """Norms and scale gradients of more than one block; float64 sums in another order: 1 ulp."""
    w, g, a = tensors((3, 6001), (3, 1))
    for scale in (a, a[0, 0]):
        got, want = both(lambda s=scale: fk.whitened_norm([g, w], [s, s], "clipped"))
        assert ulps(got, want.double()) <= 1
        (mine, slope), (wanted, exact) = both(
            lambda s=scale: fk.fake_quantize_backward(g, w, s, WIDE)
        )
        assert_same(mine, wanted, "grad_w")
        # of sums of n products, n * 2^-53 of the sum of magnitudes; |t| <= 18 bins
        rounding = w.numel() * 2.0**-53 * float(g.abs().sum()) * 18
        assert ((slope - exact).abs() <= 2.0**-23 * exact.abs() + rounding).all()


@pytest.mark.parametrize("shape", [(3, 100), (2, 4096), (1, 9001), (2, 20000)], ids=str)
def test_elementwise_and_rows(order, shape):
    w, _, a = tensors(shape, (shape[0], 1), make=awkward)
    same(lambda: fk.quantize(w, a, WIDE), "codes")
    same(lambda: fk.fake_quantize(w, a, WIDE), "values")
    codes = fk.quantize(w, a, WIDE)
    same(lambda: fk.dequantize(codes, a, WIDE), "dequantized")
    for bits in (1, 2, 4, 8):
        small = codes & (2**bits - 1)
        shifted = torch.empty(codes.numel() + 1, dtype=torch.uint8)[1:].view(shape).copy_(small)
        for given in (small, shifted):  # at a multiple of 16 bytes, and one byte behind
            same(lambda g=given, b=bits: fk.pack(g, b), f"packed {bits}")
        packed = fk.pack(small, bits)
        same(lambda p=packed: fk.unpack(p), f"unpacked {bits}")
    for block in (1, 128, 4096, 16384):
        same(lambda b=block: fk.hadamard(w, b), f"rotated in {block}")
    lone = torch.nan_to_num(w, 0.5, 1.0, -1.0)
    lone[-1, -1] = float("nan")  # seen by one warp, not the first where rows are long
    for bits in (1, 4, 8):
        for x in (w, w.bfloat16(), lone):
            (got, scale), (want, exact) = both(lambda x=x, b=bits: fk.quantize_activation(x, b))
            assert_same(got, want, f"activations of {bits} bits")
            if bits > 1:
                assert_same(scale, exact, "their scale")
    finite_w = torch.nan_to_num(w, 0.5, 1.0, -1.0).clamp(-4, 4)
    for form in ("values", "codes"):
        with fk.use_backend("cuda"):
            got, scale = fk.hadamard_quantize(finite_w, MID, form)
        with fk.use_backend("reference"):
            quantizer = fk.fake_quantize if form == "values" else fk.quantize
            assert_same(got, quantizer(fk.hadamard(finite_w), scale, MID), form)


def test_noise(order):
    for surrogate in ("identity", "hardtanh", "tanh", "approx_sign"):
        for noise in ("published", "rademacher"):
            named = {"seed": 5, "step": 1, "tensor": 2, "noise": noise, "offset": 1000}
            same(
                lambda s=surrogate, n=named: fk.noise((3, 1100), s, row_pitch=1111, **n), surrogate
            )
