"""The native kernels give the same bits on any number of threads, in each run."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_same, finite

import fogzo_kernels as fk

pytestmark = pytest.mark.skipif(
    fk.why_not("cpu") is not None, reason="the native module is not built"
)
GRID = fk.Grid("mid-rise", 2)
SHAPE = (150, 1031)  # past the work at which a second, third and fourth thread are used


def arrays():
    rng = np.random.default_rng(6)
    w, grad = finite(rng, SHAPE), finite(rng, SHAPE)
    scale = np.exp(finite(rng, (150, 1), 0.3))
    return [torch.from_numpy(a) for a in (w, grad, scale)]


def results():
    w, grad, scale = arrays()
    place = {"seed": 1, "step": 2, "tensor": 3}
    norm = fk.whitened_norm([grad, w], [scale, scale], "clipped")
    named = {"gamma": 0.1, "norm": norm, **place}
    count = torch.zeros(2, dtype=torch.int64)
    grad_w, grad_scale = fk.fake_quantize_backward(grad, w, scale, GRID)
    _, total = fk.fake_quantize_backward(grad, w, torch.tensor(0.7), GRID)
    codes = fk.perturb_quantize(w, grad, scale, GRID, form="codes", flip_count=count, **named)
    packed = fk.perturb_quantize(w, grad, scale, GRID, form="packed", **named)
    flips = fk.perturb_quantize(w, grad, scale, GRID, form="flips", **named)
    differences = torch.tensor([0.5, -1.0])
    return {
        "whitened_norm": norm,
        "noise": fk.noise(SHAPE, "tanh", **place),
        "fake_quantize": fk.fake_quantize(w, scale, GRID),
        "grad_w": grad_w,
        "grad_scale": grad_scale,
        "grad_scale of one": total,
        "codes": codes,
        "flip_count": count,
        "packed": packed.data,
        "flips": flips.index,
        "quantize": fk.quantize(w, scale, GRID),
        "unpack": fk.unpack(packed),
        "assemble_gradient": fk.assemble_gradient(grad, scale, differences, "clipped", **named),
        "hadamard": fk.hadamard(w),
        "probe_matmul": fk.probe_matmul(w[:64], codes, scale, GRID),
    }


def test_threads_change_no_bit():
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        want = results()
        for threads in (2, 3, 4, 2):
            torch.set_num_threads(threads)
            for name, got in results().items():
                assert_same(got, want[name], f"{name} on {threads} threads")
    finally:
        torch.set_num_threads(before)


def test_a_flush_of_subnormals_that_torch_was_told_changes_no_bit():
    """It holds for the thread that calls alone, so results would depend on the threads."""
    before = torch.get_num_threads()
    grad = torch.full((200, 2048), 1e-39)
    codes = torch.ones((64, 2048), dtype=torch.uint8)

    def made():
        unit = {"gamma": 0.0, "norm": 1.0, "seed": 1, "step": 1, "tensor": 0}
        estimate = fk.assemble_gradient(grad, torch.ones(()), torch.ones(1), "clipped", **unit)
        return estimate, fk.probe_matmul(grad, codes, torch.ones(()), GRID)

    try:
        torch.set_num_threads(1)
        want = made()
        assert want[0].all()
        assert want[1].all()
        assert torch.set_flush_denormal(True)
        for threads in (1, 2, 4):
            torch.set_num_threads(threads)
            got = made()
            assert torch.tensor(1e-39) * 1.0 == 0  # the caller's own mode is as it was
            torch.set_flush_denormal(False)  # a comparison may flush too
            for one, other in zip(got, want, strict=True):
                assert_same(one, other, f"{threads} threads")
            torch.set_flush_denormal(True)
    finally:
        torch.set_flush_denormal(False)
        torch.set_num_threads(before)
