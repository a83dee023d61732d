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


class Trained:
    """A net's forward and backward pass, then the estimator's operations on its gradients."""

    def __init__(self) -> None:
        import fogzo

        torch.manual_seed(0)
        self.model = torch.nn.Sequential(
            torch.nn.Linear(96, 128), torch.nn.GELU(), torch.nn.Linear(128, 40)
        ).cuda()
        fogzo.quantize_(self.model, fogzo.QuantConfig(bits=2))
        self.layers = [m for m in self.model if isinstance(m, fogzo.QuantLinear)]
        self.x, self.y = torch.randn(32, 96, device="cuda"), torch.randn(32, 40, device="cuda")
        self.step = torch.tensor(0, device="cuda")
        self.gamma = torch.tensor(1e-2, dtype=torch.float64, device="cuda")
        self.differences = torch.tensor([0.5, -0.25], device="cuda")
        self.norm = torch.zeros((), device="cuda")

    def run(self) -> tuple[Any, ...]:
        """Gradients, codes of two probes, and what takes the gradients' place."""
        for layer in self.layers:
            layer.weight.grad = None
        torch.nn.functional.mse_loss(self.model(self.x), self.y).backward()
        weights = [layer.weight.detach() for layer in self.layers]
        grads = [layer.weight.grad for layer in self.layers]
        scales = [layer.scale for layer in self.layers]
        where = {"tensors": [0, 1], "seed": 7, "step": self.step}
        fk.whitened_norm(grads, scales, "clipped", out=self.norm)
        where |= {"gamma": self.gamma, "norm": self.norm}
        codes = fk.perturb_quantize_many(
            weights, grads, scales, MID, form="codes", probes=2, **where
        )
        G = fk.assemble_gradient_many(grads, scales, self.differences, "clipped", **where)
        self.step += 1
        return grads, codes, G

    def expected(self, step: int, grads: list[torch.Tensor]) -> tuple[Any, ...]:
        """Codes and gradients by the reference on the CPU, from the gradients of the GPU."""
        weights = [layer.weight.detach().cpu() for layer in self.layers]
        scales = [layer.scale.cpu() for layer in self.layers]
        there = [g.cpu() for g in grads]
        where = {"tensors": [0, 1], "seed": 7, "step": step, "gamma": 1e-2}
        where["norm"] = float(self.norm)
        with fk.use_backend("reference"):
            codes = fk.perturb_quantize_many(
                weights, there, scales, MID, form="codes", probes=2, **where
            )
            differences = self.differences.cpu()
            G = fk.assemble_gradient_many(there, scales, differences, "clipped", **where)
        return codes, G


def test_a_captured_step_with_its_backward_pass_draws_new_noise():
    """Three replays of forward, backward and probes on a new batch each: steps 20, 21 and 22."""
    there = Trained()
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            there.run()  # compiles, and makes what cuBLAS keeps
    torch.cuda.current_stream().wait_stream(stream)
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    there.step.fill_(20)
    with torch.cuda.graph(graph):
        grads, codes, G = there.run()
    before = None
    for step in (20, 21, 22):
        there.x.normal_()
        graph.replay()
        torch.cuda.synchronize()
        assert before is None or not torch.equal(before, grads[0]), "another batch"
        before = grads[0].clone()
        want = there.expected(step, grads)
        for name, mine, theirs in zip(("codes", "gradient"), (codes, G), want, strict=True):
            for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
                assert_same(a, b, f"{name} of tensor {i} at step {step}")


COMPILED = {
    "fake_quantize": lambda w, a: fk.fake_quantize(w, a, MID),
    "quantize": lambda w, a: fk.quantize(w, a, MID),
    "compute_scale": lambda w, a: fk.compute_scale(w, MID),
    "hadamard_quantize": lambda w, a: fk.hadamard_quantize(w, MID),
    "quantize_activation": lambda w, a: fk.quantize_activation(w),
    "probe_matmul": lambda w, a: fk.probe_matmul(w, fk.quantize(w, a, MID), a, MID),
    "perturb_quantize": lambda w, a: fk.perturb_quantize(
        w, w, a, MID, seed=1, step=2, tensor=3, gamma=0.5, norm=8.0, probes=2, form="codes"
    ),
    "assemble_gradient": lambda w, a: fk.assemble_gradient(
        w, a, w[0, :2].abs(), "clipped", seed=1, step=2, tensor=3, gamma=0.5, norm=8.0
    ),
}


@pytest.mark.parametrize("name", COMPILED)
def test_a_compiled_call_is_the_eager_one(name):
    w = torch.randn(48, 160, device="cuda")
    scale = torch.full((48, 1), 0.5, device="cuda")
    want = COMPILED[name](w, scale)
    got = torch.compile(COMPILED[name], fullgraph=True)(w, scale)
    pairs = zip(got, want, strict=True) if isinstance(want, tuple) else ((got, want),)
    for mine, theirs in pairs:
        assert mine.device.type == "cuda"
        assert_same(mine, theirs, name)


def test_no_operation_runs_on_the_reference_on_a_gpu():
    found = fk.capabilities()
    assert [op for op, row in found.items() if row["triton"] is not None] == []


def test_flips_into_outputs_do_not_wait_for_the_gpu():
    with fk.use_backend("triton"):
        ws = [torch.randn(shape, device="cuda") for shape in ((64, 256), (33, 129))]
        scales = [torch.full((len(w), 1), 0.5, device="cuda") for w in ws]
        named = {"seed": 1, "step": 2, "tensors": [0, 1], "gamma": 0.3, "norm": 9.0}

        def call(**more):
            return fk.perturb_quantize_many(ws, ws, scales, MID, form="flips", **named, **more)

        want = call()
        outs = [
            fk.Flips(*(torch.empty_like(part) for part in (f.base, f.index, f.code, f.count)))
            for f in want
        ]
        call(outs=outs)
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            call(outs=outs)
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for a, b in zip(outs, want, strict=True):
        for name in ("base", "index", "code", "count"):
            assert_same(getattr(a, name), getattr(b, name), name)
