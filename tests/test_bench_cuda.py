"""fogzo bench --device cuda, as far as a machine without a GPU tells: timer, peers, bars."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from fogzo_bench import (
    _blocks,
    _command,
    _device,
    _events,
    _layers,
    _report,
    _rows,
    assemble_gradient,
    perturb_quantize,
    probe_matmul_cuda,
)
from fogzo_bench._measure import Times
from fogzo_bench._options import BenchError, Options

from fogzo.cli import main

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")


class FakeCuda:
    """torch.cuda with a clock of its own: calls move it, events read it when they are reached."""

    def __init__(self) -> None:
        self.now, self.log = 0.0, []
        cuda = self

        class Event:
            def __init__(self, enable_timing: bool) -> None:
                assert enable_timing
                self.waited = False

            def record(self) -> None:
                self.at = cuda.now
                cuda.log.append("record")

            def synchronize(self) -> None:
                self.waited = True

            def elapsed_time(self, end: Any) -> float:
                assert end.waited
                return 1e3 * (end.at - self.at)

        self.Event = Event

    def get_device_properties(self) -> Any:
        return dataclasses.make_dataclass("Properties", ["L2_cache_size"])(2**20)

    def _sleep(self, cycles: int) -> None:
        assert cycles > 0
        self.now += 1.0
        self.log.append("sleep")

    def call(self, seconds: float) -> Any:
        def run() -> None:
            self.now += seconds
            self.log.append("call")

        return run


def test_the_flush_is_larger_than_the_cache() -> None:
    assert _events.flush_bytes(50 * 2**20) == 200 * 2**20
    assert _events.flush_bytes(0) == _events.LEAST_FLUSH


def test_a_call_alone_lies_between_its_events() -> None:
    cuda = FakeCuda()
    clock = _events.Clock(cuda=cuda, device="cpu")
    clock._flush.fill_(1)
    assert clock.seconds(clock.start(cuda.call(0.25))) == 0.25
    assert cuda.log == ["sleep", "record", "call", "record"]
    assert not clock._flush.any()
    assert _events.seconds(cuda.call(0.5), repeat=3, warmup=2, clock=clock) == 0.5
    without = _events.Clock(head_start=False, cuda=cuda, device="cpu")
    cuda.log.clear()
    without.start(cuda.call(0.25))
    assert "sleep" not in cuda.log


def test_variants_are_timed_by_themselves() -> None:
    cuda = FakeCuda()
    clock = _events.Clock(cuda=cuda, device="cpu")
    variants = {"a": cuda.call(0.125), "b": cuda.call(0.5)}
    found = _events.measure(variants, rounds=5, warmup=1, clock=clock)
    assert found == {"a": Times(0.125, 0.125, 0.125), "b": Times(0.5, 0.5, 0.5)}
    assert cuda.log.count("call") == 2 * (1 + 5)


SMALL = probe_matmul_cuda.Case(24, 16, 128, 2, "int8", barred=True)


@pytest.mark.parametrize("x", ["int8", "bfloat16"])
def test_the_products_of_peers_are_ours(x: str) -> None:
    """Each is compared inside; on a CPU our backend is the native one."""
    case = dataclasses.replace(SMALL, x=x)
    found = probe_matmul_cuda.run(case, Options(repeat=1, compiled=False, backend="reference"))
    wanted = {"torch.bmm, bfloat16", "linear, bfloat16"}
    wanted |= {"torch._int_mm", "torch._int_mm, scales"} if x == "int8" else set()
    assert set(found.peers()) == wanted
    assert _report.ours_among(found.times) == ["reference", "reference, x per side"]
    assert found.operations == 2 * 2 * 24 * 16 * 128
    if x == "int8":
        assert {(bar.divisor, bar.most) for bar in found.bars} == {
            ("torch._int_mm", 1.3333), ("torch.bmm, bfloat16", 0.6667),
            ("reference, x per side", 0.9091),
        }  # fmt: skip


def test_both_cuda_products_are_timed_where_there_are_both(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    takes = {case: probe_matmul_cuda.wgmma(case, "cuda") for case in probe_matmul_cuda.CASES}
    assert not any(takes.values())
    for number, wanted in ((90, {"int8", "bfloat16"}), (80, set()), (100, set())):
        monkeypatch.setattr(_device, "architecture", lambda n=number: n)
        found = [case for case in takes if probe_matmul_cuda.wgmma(case, "cuda")]
        assert {case.x for case in found} == wanted
        assert all(case.m > 32 for case in found)
        assert not any(probe_matmul_cuda.wgmma(case, "triton") for case in takes)


def test_a_peer_that_is_wrong_is_no_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    wrong = {"torch.bmm, bfloat16": lambda: torch.zeros(2, 24, 16)}
    monkeypatch.setattr(probe_matmul_cuda.peers, "products", lambda *given: wrong)
    with pytest.raises(BenchError, match="torch.bmm, bfloat16 is off by"):
        probe_matmul_cuda.run(SMALL, Options(repeat=1, compiled=False, backend="reference"))


@pytest.fixture
def gpu_choices(monkeypatch: pytest.MonkeyPatch) -> None:
    """The choices for a GPU, small, with tensors on the CPU."""
    monkeypatch.setattr(_device, "pick", lambda cpu, gpu: gpu)
    monkeypatch.setattr(_layers, "GPU_SIZE", (8, 1024))
    monkeypatch.setattr(_layers, "COUNT", 2)


@pytest.mark.usefixtures("gpu_choices")
def test_many_layers_at_once_are_the_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = _layers.make("perturb_quantize", Options())
    assert layers.size == (8, 1024)
    for make in (perturb_quantize._ours, assemble_gradient._ours):
        many = make(layers, "rademacher", 2)().clone()
        with monkeypatch.context() as choice:
            choice.setattr(_device, "pick", lambda cpu, gpu: cpu)
            assert torch.equal(make(layers, "rademacher", 2)(), many)


def test_the_bars_of_an_h200(monkeypatch: pytest.MonkeyPatch) -> None:
    """0.8 ms and 1.8 ms of 300M weights, or 70 % of the bound where that is more."""
    bounds = {"1 probes": 0.4e-3, "4 probes": 1.5e-3}
    monkeypatch.setattr(
        perturb_quantize.static, "least", lambda name, case, shape, n, gpu: bounds[shape]
    )
    monkeypatch.setattr(_layers.Layers, "elements", property(lambda self: 300_000_000))
    layers = _layers.make("perturb_quantize", Options(shape=(1, 8, 16)))
    bars, lines = perturb_quantize._roofline(layers, "published", [1, 4], "NVIDIA H200")
    assert [(bar.variant, bar.divisor, bar.most) for bar in bars] == [
        ("triton n=1", "roofline n=1", 2.0), ("triton n=4", "roofline n=4", 1.4286),
    ]  # fmt: skip
    assert [times.median for times in lines.values()] == [0.4e-3, 1.5e-3]


def test_a_gpu_whose_rates_are_unknown_has_no_roofline() -> None:
    layers = _layers.make("perturb_quantize", Options(shape=(1, 8, 16)))
    for gpu in (None, "NVIDIA L4"):
        assert perturb_quantize._roofline(layers, "published", [1, 4], gpu) == ([], {})


def test_the_bar_of_a_w2a8_step() -> None:
    """All time in quantized products: 1 + 1/3; none: 1 + 2/3; 0.06 for the rest of the step."""
    assert _blocks.low_bit_bar(3.0, 3.0) == pytest.approx(1 + 1 / 3 + 0.06)
    assert _blocks.low_bit_bar(3.0, 0.0) == pytest.approx(1 + 2 / 3 + 0.06)


def test_rows_of_two_gpus_are_two_measurements() -> None:
    row = {"op": "noise", "shape": {}, "threads": 1}
    assert (
        len({_rows.key(row), _rows.key({**row, "gpu": "A"}), _rows.key({**row, "gpu": "B"})}) == 3
    )
    assert _rows.key(row) == _rows.key({**row, "gpu": None})


def test_float8_is_not_measured_on_a_cpu() -> None:
    with pytest.raises(BenchError, match="float8_e4m3fn is measured on a GPU alone"):
        _command.BENCHES["probe_matmul"].cases(Options(dtype="float8_e4m3fn"))


@no_gpu
def test_without_a_gpu_the_command_says_so(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in _command.MALLOC.items():
        monkeypatch.setenv(name, value)
    assert main(["bench", "noise", "--device", "cuda"]) == 1
    assert "--device cuda measures on a GPU: no CUDA device" in capsys.readouterr().err
