"""Triton on a GPU: no host synchronisation, and CUDA graphs that draw new noise at every replay.

Never run yet on a machine with a GPU.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from helpers import assert_same

import fogzo_kernels as fk

pytestmark = pytest.mark.gpu
MID = fk.Grid("mid-rise", 2)
SHAPES = ((96, 256), (33, 129), (64, 128), (1, 4096), (8, 3, 3, 3))


class Step:
    """A step's three launches on device memory alone: seed, step, gamma and norm are read there."""

    def __init__(self, device: str, step: int) -> None:
        generator = torch.Generator().manual_seed(0)
        self.ws = [torch.randn(s, generator=generator).to(device) for s in SHAPES]
        self.gs = [torch.randn(s, generator=generator).to(device) for s in SHAPES]
        self.scales = [torch.full((s[0], 1), 0.5).to(device) for s in SHAPES]
        self.seed = torch.tensor(-7).to(device)
        self.step = torch.tensor(step).to(device)
        self.gamma = torch.tensor(1e-3, dtype=torch.float64).to(device)
        self.differences = torch.tensor([0.5, -0.25]).to(device)
        self.norm = torch.zeros((), device=device)

    def run(self) -> tuple[Any, ...]:
        where = {"tensors": list(range(len(SHAPES))), "seed": self.seed, "step": self.step}
        fk.whitened_norm(self.gs, self.scales, "clipped", out=self.norm)
        where |= {"gamma": self.gamma, "norm": self.norm}
        codes = fk.perturb_quantize_many(
            self.ws, self.gs, self.scales, MID, form="codes", probes=2, **where
        )
        packed = fk.perturb_quantize_many(
            self.ws, self.gs, self.scales, MID, form="packed", probes=2, **where
        )
        grads = fk.assemble_gradient_many(
            self.gs, self.scales, self.differences, "clipped", **where
        )
        self.step += 1
        return codes, [p.data for p in packed], grads


def expected(step: int, norm: torch.Tensor) -> tuple[Any, ...]:
    """The reference's step on the CPU, with the norm that the GPU found."""
    there = Step("cpu", step)
    with fk.use_backend("reference"):
        fk.whitened_norm(there.gs, there.scales, "clipped", out=there.norm)
        assert abs(there.norm - norm.cpu()) <= 2.0**-23 * there.norm
        where = {"tensors": list(range(len(SHAPES))), "seed": -7, "step": step}
        where |= {"gamma": 1e-3, "norm": float(norm)}
        codes = fk.perturb_quantize_many(
            there.ws, there.gs, there.scales, MID, form="codes", probes=2, **where
        )
        grads = fk.assemble_gradient_many(
            there.gs, there.scales, there.differences, "clipped", **where
        )
    return codes, [fk.pack(c, 2).data for c in codes], grads


def compare(got: tuple[Any, ...], want: tuple[Any, ...], what: str) -> None:
    for part, mine, theirs in zip(("codes", "packed", "gradient"), got, want, strict=True):
        for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
            assert_same(a, b, f"{part} of tensor {i}, {what}")


def test_a_step_does_not_wait_for_the_gpu():
    with fk.use_backend("triton"):
        there = Step("cuda", 5)
        there.run()  # compiles
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            got = there.run()
        finally:
            torch.cuda.set_sync_debug_mode("default")
    compare(got, expected(6, there.norm), "the second step")


def test_a_captured_step_draws_new_noise_at_every_replay():
    with fk.use_backend("triton"):
        there = Step("cuda", 0)
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(2):
                there.run()  # compiles
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        there.step.fill_(10)
        with torch.cuda.graph(graph):
            got = there.run()
        for step in (10, 11, 12):
            graph.replay()
            torch.cuda.synchronize()
            compare(got, expected(step, there.norm), f"the replay of step {step}")


def test_outputs_made_before_a_capture_serve_in_it():
    """The table of a call that ran before is read, not copied again."""
    with fk.use_backend("triton"):
        w = torch.randn(64, 128, device="cuda")
        scale, out = torch.tensor(0.5, device="cuda"), torch.empty(2, 64, 128, device="cuda")
        step = torch.tensor(3, device="cuda")

        def call():
            fk.perturb_quantize(
                w, w, scale, MID, seed=1, step=step, tensor=0, gamma=0.5, norm=8.0, out=out
            )

        call()
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            call()
        step.fill_(4)
        graph.replay()
        torch.cuda.synchronize()
    with fk.use_backend("reference"):
        want = fk.perturb_quantize(
            w.cpu(), w.cpu(), scale.cpu(), MID, seed=1, step=4, tensor=0, gamma=0.5, norm=8.0
        )
    assert_same(out, want)


def test_auto_takes_triton_on_a_gpu_and_the_selftest_agrees():
    from fogzo_kernels import selftest

    assert fk.backends()[0] in ("triton", "cuda")
    assert selftest.digest("triton") == selftest.digest("reference")
