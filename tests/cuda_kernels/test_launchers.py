"""What the public tests do not reach without a GPU: scalars in memory, the launchers' refusals."""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from helpers import assert_same, finite

import fogzo_kernels as fk
from fogzo_kernels import _native
from fogzo_kernels._check import Draw, View
from fogzo_kernels.assemble_gradient import native as assemble
from fogzo_kernels.noise import native as noise_native
from fogzo_kernels.perturb_quantize import native as perturb

SIGN, MID = fk.Grid("sign"), fk.Grid("mid-rise", 2)
OFF = (0, 0, 0, 0, 0, 0, 0.5, 1.0)  # of fogzo_cuda_scalars: all on the host


@pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.3, 1 - 1e-9, 1.0])
def test_scalars_in_memory_give_the_bits_of_host_numbers(gamma):
    """0-dim CPU tensors are read by the check; a GPU's by the kernel, which is called here."""
    rng = np.random.default_rng(0)
    w, g = (torch.from_numpy(finite(rng, (3, 256))) for _ in range(2))
    a = torch.tensor([[0.25], [0.5], [1.0]])
    view = View("torch", "cpu", (3, 256), 3, 256, 3, 1)
    draw = Draw("hardtanh", "published", torch.tensor(-3), torch.tensor(2**32 - 1), 7, 1, 2, 0, 256)
    named = {"gamma": torch.tensor(gamma, dtype=torch.float64), "norm": torch.tensor(4.0)}
    named |= {"grad": g, "scale": a, "draw": draw, "view": view}
    form = {"grid": SIGN, "form": "values", "sides": 2, "capacity": None, "shape": (4, 3, 256)}
    place = {"seed": 2**64 - 3, "step": 2**32 - 1, "tensor": 7, "first_probe": 1}
    guide = {"gamma": gamma, "norm": 4.0}
    d = torch.tensor([0.5, 2.0])
    with fk.use_backend("reference"):
        want = fk.perturb_quantize(w, g, a, SIGN, "hardtanh", probes=2, **place, **guide)
        gradient = fk.assemble_gradient(g, a, d, "hardtanh", **place, **guide)
        u = fk.noise((3, 256), "hardtanh", seed=-3, step=2**32 - 1, tensor=7, probe=1)
    got, _ = perturb.perturb_quantize_cuda((None, None), False, w=w, **form, **named)
    assert_same(got, want, "values")
    assert_same(assemble.assemble_gradient_cuda(None, differences=d, **named), gradient, "G")
    assert_same(noise_native.noise_cuda(draw, "cpu", view, None), u, "noise")


def tensor_row(w, out, cols=5, offset=0, grid=MID, surrogate=1):
    array = [w.data_ptr()] * 3
    return (*array, out.data_ptr(), 0, 2, cols, 1, 1, offset, cols, 0, grid.number, 2, surrogate)


def test_launchers_refuse_what_python_never_asks_for():
    cuda = _native.module("_cuda")
    w = torch.ones(2, 8)
    out = torch.full((2, 2, 8), 7.0)
    at, to = w.data_ptr(), out.data_ptr()

    def perturbed(row, form=0, sides=2, scalars=OFF, kind=0):
        return cuda.perturb_quantize_many([row], 0, kind, form, sides, 1, 0, scalars, 0)

    text = cuda.status_text
    assert "inside a byte" in text(perturbed(tensor_row(w, out), form=2))
    assert "inside a byte" in text(perturbed(tensor_row(w, out, cols=8, offset=2), form=2))
    assert text(perturbed(tensor_row(w, out), form=3)).startswith("form")
    assert text(perturbed(tensor_row(w, out), sides=3)).startswith("sides")
    assert text(perturbed(tensor_row(w, out), kind=2)).startswith("noise")
    assert text(perturbed(tensor_row(w, out, surrogate=2))).startswith("surrogate")
    assert text(perturbed(tensor_row(w, out), scalars=(*OFF[:6], 1.5, 1.0))).startswith("gamma")
    assert text(perturbed(tensor_row(w, out), scalars=(*OFF[:5], -1, 0.5, 1.0))).startswith(
        "counter"
    )
    sizes = (2, 8, 2, 2, 3, 2)
    assert text(cuda.quantize(at, at, to, 2, 8, 1, 2, 3, 2, 0)).startswith("scale")
    assert text(cuda.quantize(at, at, to, 2, 8, 2, 3, 3, 2, 0)).startswith("scale")
    assert text(cuda.quantize(at, 0, to, *sizes, 0)).startswith("pointer")
    assert text(cuda.quantize(at, at, 0, *sizes, 0)).startswith("pointer")
    assert text(cuda.quantize(at, at, to, 2**62, 8, *sizes[2:], 0)).startswith("size")
    assert text(cuda.dequantize(at, at, to, 2, 8, 2, 2, 3, 9, 0)).startswith("grid")
    assert text(cuda.fake_quantize(at, at, to, 2, 8, 2, 2, 4, 2, 0)).startswith("grid")
    assert text(cuda.pack(at, to, 2, 8, 3, 0)).startswith("bits")
    assert text(cuda.unpack(at, to, -1, 8, 2, 0)).startswith("size")
    assert text(cuda.hadamard(at, to, 2, 8, 3, 0)).startswith("block")
    assert text(cuda.hadamard(0, to, 2, 8, 4, 0)).startswith("pointer")
    assert text(cuda.hadamard_quantize(at, to, to, to, 2, 8, 1.0, 3, 2, 0)).startswith("pointer")
    assert text(cuda.quantize_activation(at, to, to, 2, 8, 9, 0, 0)).startswith("grid")
    assert text(cuda.quantize_activation(at, to, to, 2, 8, 8, 2, 0)).startswith("x_type")
    back = (at, at, at, to, to, 0, 0, 1, 8192, 1, 1, 3, 2)
    assert text(cuda.fake_quantize_backward(*back, 1, 0.0, 0)).startswith("workspace")
    assert text(cuda.fake_quantize_backward(*back, 3, 0.0, 0)).startswith("surrogate")
    for surrogate, limit in ((1, -1.0), (1, float("nan")), (0, 0.99)):
        assert text(cuda.fake_quantize_backward(*back, surrogate, limit, 0)).startswith("limit")
    assert text(cuda.whitened_norm([tensor_row(w, out)], 0, to, 0, 0, 0)).startswith("workspace")
    assert text(cuda.find_flips(at, at, to, to, to, to, 0, 1, 8, 1, 0)).startswith("workspace")
    assert text(cuda.find_flips(at, at, to, to, to, to, 8, 2**61, 8, 1, 0)).startswith("size")
    rows = 2**31  # one column each: a block of threads for every row
    sparse = (*tensor_row(w, out)[:5], rows, 1, 1, 1, 0, 2, 0, MID.number, 2, 1)
    assert text(perturbed(sparse)).startswith("size")
    assert text(cuda.assemble_gradient_many([sparse], at, 0, 0, 1, 0, OFF, 0)).startswith("size")
    assert perturbed((*sparse[:6], 0, *sparse[7:])) == 0
    assert (out == 7.0).all()


def test_launchers_refuse_numbers_at_odd_addresses():
    """Which a GPU answers with an error that ends the program's use of it."""
    cuda = _native.module("_cuda")
    room = torch.full((64,), 7.0)
    at = room.data_ptr()
    row = tensor_row(room, room)

    def moved(arguments, place):
        return (*arguments[:place], arguments[place] + 2, *arguments[place + 1 :])

    def many(place):
        return moved(row, place)

    refused = [
        cuda.perturb_quantize_many([many(place)], 0, 0, 0, 2, 1, 0, OFF, 0) for place in range(4)
    ]
    refused += [cuda.assemble_gradient_many([many(i)], at, 0, 0, 1, 0, OFF, 0) for i in (1, 2, 3)]
    refused += [cuda.whitened_norm([many(place)], 0, at, at, 64, 0) for place in (1, 2)]
    scalars = (at + 4, *OFF[1:])  # an int64 behind the first four bytes
    refused.append(cuda.noise(at, 0, 2, 8, 0, 8, 0, 0, scalars, 0, 0, 0))
    refused.append(cuda.perturb_quantize_many([row], 0, 0, 0, 2, 1, 0, scalars, 0))
    # a launcher, its arguments, which of them are arrays of numbers wider than a byte
    sizes = (2, 8, 2, 1)
    for launcher, arguments, wide in (
        (cuda.noise, (at, 0, 2, 8, 0, 8, 0, 0, OFF, 0, 0), (0,)),
        (cuda.quantize, (at, at, at, *sizes, 3, 2), (0, 1)),
        (cuda.dequantize, (at, at, at, *sizes, 3, 2), (1, 2)),
        (cuda.fake_quantize, (at, at, at, *sizes, 3, 2), (0, 1, 2)),
        (cuda.fake_quantize_backward, (*[at] * 6, 64, *sizes, 3, 2, 1, 0.0), (0, 1, 2, 3, 4)),
        (cuda.hadamard, (at, at, 2, 8, 4), (0, 1)),
        (cuda.hadamard_quantize, (at, at, 0, at, 2, 8, 1.0, 3, 2), (0, 1, 3)),
        (cuda.quantize_activation, (at, at, at, 2, 8, 8, 0), (0, 2)),
        (cuda.find_flips, (*[at] * 6, 64, 1, 8, 1), (2, 4)),
    ):
        refused += [launcher(*moved(arguments, place), 0) for place in wide]
    said = {cuda.status_text(status).partition(",")[0] for status in refused}
    assert said == {"pointer is not aligned"}
    assert (room == 7.0).all()


def test_wgmma_needs_its_compute_capability(capability):
    """Its instructions are in no GPU before and behind 9.0; nothing is written there."""
    matmul = importlib.import_module("fogzo_kernels.probe_matmul.native")
    x, codes = torch.ones((2, 16), dtype=torch.int8), torch.ones((3, 16), dtype=torch.uint8)
    y = torch.full((1, 2, 3), 7.0)

    def call():
        named = {"x_scale": torch.ones(2), "out": y}
        with fk.use_backend("cuda"):
            fk.probe_matmul(x, codes, torch.tensor(1.0), fk.Grid("ternary"), **named)

    for number in (80, 89, 91, 100, 120):
        capability(number)
        expected = r"probe_matmul: kernel is wgmma .* expected a GPU of compute capability 9\.0 and"
        with matmul.use_kernel("wgmma"), pytest.raises(ValueError, match=expected):
            call()
    assert (y == 7.0).all()
    call()
    assert (y == 0.0).all()
    y.fill_(7.0)
    capability(90)
    with matmul.use_kernel("wgmma"):
        call()
    assert (y == 0.0).all()


def test_flips_beyond_the_room_are_left_out():
    """As on a GPU, where nothing is read back before the kernel runs."""
    cuda = _native.module("_cuda")
    base = torch.zeros(9000, dtype=torch.uint8)
    codes = (torch.arange(18000) % 3 == 0).view(2, 9000).to(torch.uint8)
    index, code = torch.full((2, 5), 99), torch.full((2, 5), 9, dtype=torch.uint8)
    count, room = torch.zeros(2, dtype=torch.int64), torch.zeros(100, dtype=torch.int64)
    arrays = (base, codes, index, code, count, room)
    assert cuda.find_flips(*(x.data_ptr() for x in arrays), 800, 2, 9000, 5, 0) == 0
    assert index.tolist() == [[0, 3, 6, 9, 12]] * 2
    assert count.tolist() == [3000, 3000]
    assert code.tolist() == [[1] * 5] * 2
