"""The CUDA module: refused with its reason without a GPU, equal to the reference with one."""

from __future__ import annotations

import pytest

import fogzo_kernels as fk
from fogzo_kernels import _native

torch = pytest.importorskip("torch")
SURROGATES = ("identity", "clipped", "hardtanh", "tanh", "approx_sign", "trust")

needs_module = pytest.mark.skipif(
    _native.module("_cuda") is None, reason="fogzo_kernels._cuda is not built (no nvcc)"
)
OFF = (0, 0, 0, 0, 0, 0, 0.0, 0.0)  # fogzo_cuda_scalars: seed and step 0, on the host


@needs_module
@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_it_says_so():
    assert fk.why_not("cuda") == "no CUDA device"
    assert "cuda" not in fk.backends()
    with fk.use_backend("cuda"), pytest.raises(RuntimeError, match="no CUDA device"):
        fk.noise((2, 3), "identity", seed=0, step=0, tensor=0)


@needs_module
def test_bad_arguments_are_refused_before_the_device_is_touched():
    cuda = _native.module("_cuda")
    good = {"out": 0, "table": 0, "rows": 0, "cols": 4, "offset": 0, "row_pitch": 4}
    good |= {"surrogate": 0, "noise": 0, "scalars": OFF, "tensor": 0, "probe": 0, "stream": 0}
    assert cuda.noise(*good.values()) == 0
    for name, value in [
        ("rows", -1),
        ("rows", 2),  # a null output
        ("surrogate", 6),
        ("noise", 2),
        ("scalars", (*OFF[:5], 2**32, 0.0, 0.0)),
        ("tensor", 2**32 - 1),
        ("probe", -1),
    ]:
        assert cuda.noise(*{**good, name: value}.values()) != 0, (name, value)
    for name, value in [("offset", 2**35), ("row_pitch", 3)]:
        assert cuda.noise(*{**good, "rows": 2, name: value}.values()) != 0, (name, value)


@pytest.mark.gpu
@needs_module
@pytest.mark.parametrize("surrogate", SURROGATES)
@pytest.mark.parametrize("noise", ["published", "rademacher"])
@pytest.mark.parametrize(
    ("shape", "offset", "row_pitch"),
    [
        ((1, 1), 0, None),
        ((3, 5), 1023, None),
        ((7, 129), 500, 129),
        ((2, 1025), 16383, 5000),
        ((300, 70000), 77, None),
        ((70001, 3), 2**33, 9),
        ((2, 17), 2**35 - 100, 83),
    ],
)
def test_noise_equals_the_reference(surrogate, noise, shape, offset, row_pitch):
    arguments = {"seed": 2**64 - 3, "step": 2**32 - 1, "tensor": 5, "probe": 9, "noise": noise}
    arguments |= {"offset": offset, "row_pitch": row_pitch}
    with fk.use_backend("cpu" if "cpu" in fk.backends() else "reference"):
        wanted = fk.noise(shape, surrogate, **arguments)
    out = torch.full(shape, float("nan"), device="cuda")
    with fk.use_backend("cuda"):
        got = fk.noise(shape, surrogate, **arguments, device="cuda", out=out)
    assert torch.equal(got.cpu().view(torch.int32), wanted.view(torch.int32))


@pytest.mark.gpu
@needs_module
def test_a_captured_step_draws_new_noise_at_every_replay():
    """Tables lie in the launches, the scalars in device memory: nothing waits or is copied."""
    shapes = ((64, 128), (3, 100), (8, 4096))
    ws = [torch.randn(shape, device="cuda") for shape in shapes]
    gs = [torch.randn(shape, device="cuda") for shape in shapes]
    scales = [torch.full((shape[0], 1), 0.5, device="cuda") for shape in shapes]
    step, seed = torch.tensor(0, device="cuda"), torch.tensor(-7, device="cuda")
    gamma = torch.tensor(1e-3, dtype=torch.float64, device="cuda")
    differences = torch.tensor([0.5, -2.0], device="cuda")
    grid = fk.Grid("mid-rise", 2)

    def run():
        norm = fk.whitened_norm(gs, scales, "clipped")
        named = {"tensors": [0, 1, 2], "seed": seed, "step": step, "gamma": gamma, "norm": norm}
        codes = fk.perturb_quantize_many(ws, gs, scales, grid, form="codes", probes=2, **named)
        grads = fk.assemble_gradient_many(gs, scales, differences, "clipped", **named)
        return norm, codes, grads

    with fk.use_backend("cuda"):
        run()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                norm, codes, grads = run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for number in (10, 11, 12):
        step.fill_(number)
        graph.replay()
        torch.cuda.synchronize()
        named = {"tensors": [0, 1, 2], "seed": -7, "step": number, "gamma": 1e-3}
        named["norm"] = float(norm)
        arrays = [[array.cpu() for array in part] for part in (ws, gs, scales)]
        with fk.use_backend("cpu" if "cpu" in fk.backends() else "reference"):
            wanted = fk.perturb_quantize_many(*arrays, grid, form="codes", probes=2, **named)
            gradient = fk.assemble_gradient_many(*arrays[1:], differences.cpu(), "clipped", **named)
        for got, want in zip((*codes, *grads), (*wanted, *gradient), strict=True):
            assert torch.equal(got.cpu(), want), number


@pytest.mark.gpu
@needs_module
def test_the_selftest_agrees():
    from fogzo_kernels import selftest

    assert selftest.digest("cuda") == selftest.digest("reference")
