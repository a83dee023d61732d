"""The bench harness: statistics, bars, rows and what happens when tests fail; nothing is timed."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
from pathlib import Path

import pytest
import torch
from fogzo_bench import (
    _blocks,
    _command,
    _layers,
    _measure,
    _options,
    _report,
    _rows,
    calls,
    peers,
    probe_matmul_flips,
    step,
)

import fogzo
import fogzo_kernels
from fogzo import recipes
from fogzo.cli import main


def times(median: float) -> _measure.Times:
    return _measure.Times(median, median / 2, median * 2)


def result(ours: float) -> _report.Result:
    return _report.Result(
        op="step",
        shape={"model": "mnist"},
        times={"a": times(1.0), "b": times(2.0), "our own": times(ours)},
        bars=[_report.Bar("our own", "a", 1.05)],
        copy=times(0.5),
        copied=10**9,
        moved={"our own": 10**9},
    )


def test_median_and_range_are_order_statistics() -> None:
    spread = _measure.spread([float(value) for value in range(100, -1, -1)])
    assert (spread.median, spread.low, spread.high) == (50.0, 10.0, 90.0)


def test_each_round_takes_one_sample_of_every_variant(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that only calls advance, a call that takes 3 ticks is measured as 3."""
    now = 0
    order: list[str] = []

    def call(name: str, ticks: int) -> None:
        nonlocal now
        now += ticks
        order.append(name)

    monkeypatch.setattr(_measure, "clock", lambda threads: lambda: now)
    measured = _measure.measure(
        {"a": lambda: call("a", 3), "b": lambda: call("b", 5)},
        threads=1,
        rounds=4,
        warmup=0,
        sample_seconds=0,
    )
    assert measured == {
        "a": _measure.Times(3e-9, 3e-9, 3e-9),
        "b": _measure.Times(5e-9, 5e-9, 5e-9),
    }
    sampled = order[2:]
    assert all(sorted(sampled[at : at + 2]) == ["a", "b"] for at in range(0, 8, 2))


def test_cpu_time_on_one_thread_only() -> None:
    import time

    assert _measure.clock(1) is time.process_time_ns
    assert _measure.clock(2) is time.perf_counter_ns


def test_fastest_peer_is_the_divisor() -> None:
    assert _report.fastest({"a": times(2.0), "b": times(1.0), "c": times(0.5)}, ["a", "b"]) == "b"


@pytest.mark.parametrize(("ours", "verdict"), [(1.05, "PASS"), (1.06, "MISS")])
def test_bars(ours: float, verdict: str) -> None:
    found = result(ours)
    assert found.passes() == (verdict == "PASS")
    assert f"  {verdict}  our own / a: {ours:.3f}, bar 1.05" in found.lines()
    assert found.row(1, ["bench", "step"])["bars"][0]["pass"] == (verdict == "PASS")


def test_columns_give_rates_shares_and_the_ratio_to_each_peer() -> None:
    found = result(1.0)
    found.operations, found.peak = 3 * 10**9, 6e9
    head, a, b, ours = (re.split("  +", line.strip()) for line in found.lines()[1:5])
    assert head == [
        "variant", "median us", "10 - 90 %", "GB/s", "of copy", "GOP/s", "of peak", "our own / it",
    ]  # fmt: skip
    assert ours == [
        "our own", "1000000.0", "500000.0 .. 2000000.0", "1.00", "50 %", "3.0", "50 %", "1.000",
    ]  # fmt: skip
    assert a[0] == "a *"
    assert (a[-1], b[-1]) == ("1.000", "0.500")
    assert found.ratios() == {"our own": {"a": 1.0, "b": 0.5}}


def test_ours_are_named_by_backend_or_estimator() -> None:
    names = ["cpu", "cpu n=4", "our STE", "FOGZO n = 1, int8", "reference"]
    assert _report.ours_among([*names, "copy", "read", "eager", "cpu.py", "torch"]) == names


@pytest.mark.parametrize(
    "words", [["--json", "/home/me/rows.jsonl"], ["--json=/home/me/rows.jsonl"]]
)
def test_row_names_no_folder_of_its_machine(words: list[str]) -> None:
    command = result(1.0).row(1, ["bench", "step", *words])["command"]
    assert command == "fogzo bench step " + " ".join(words).replace("/home/me/", "")


def test_row_reproduces_the_measurement(tmp_path: Path) -> None:
    row = result(1.0).row(1, ["bench", "step", "--threads", "1"])
    for name in ("op", "shape", "commit", "dirty", "cpu", "load", "versions", "threads", "time"):
        assert name in row
    assert row["command"] == "fogzo bench step --threads 1"
    for _ in range(2):
        _rows.append(tmp_path / "rows.jsonl", row)
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row, row]


def test_committed_rows_are_readable() -> None:
    for path in (_report.SOURCE / "bench" / "results").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["dirty"] is False
            assert row["commit"]


def _git(*words: str) -> str:
    """What git says of this tree; skips where the history that rows point into is not here."""
    try:
        command = ["git", "-C", str(_report.SOURCE), *words]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        pytest.skip("git is not installed")
    if done.returncode:
        pytest.skip(f"no git repository to ask: {done.stderr.strip()}")
    return done.stdout.strip()


def test_committed_rows_come_from_this_history() -> None:
    if Path(_git("rev-parse", "--show-toplevel")) != _report.SOURCE:
        pytest.skip("the tree is a copy without its history")
    if _git("rev-parse", "--is-shallow-repository") == "true":
        pytest.skip("a shallow clone: the commits of older rows are not in it")
    history = set(_git("rev-list", "HEAD").split())
    for path in (_report.SOURCE / "bench" / "results").glob("*.jsonl"):
        commits = {json.loads(line)["commit"] for line in path.read_text().splitlines()}
        assert commits <= history, path.name


def test_failing_tests_give_no_number(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in _command.MALLOC.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_command, "_tests_pass", lambda name: False)
    assert main(["bench", "step"]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert "the tests of step failed, so there is no number" in printed.err


def test_without_tests_the_selftest_decides(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_command, "SOURCE", tmp_path)
    assert _command._tests_pass("noise")
    monkeypatch.setattr("fogzo_kernels.selftest.digest", lambda backend: str(backend))
    assert not _command._tests_pass("noise")


def test_it_starts_again_with_the_allocator_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in _command.MALLOC:
        monkeypatch.delenv(name, raising=False)
    started = {}

    class Done:
        returncode = 7

    def run(words: list[str], env: dict[str, str]) -> Done:
        started.update(words=words, env=env)
        return Done()

    monkeypatch.setattr(_command.subprocess, "run", run)
    assert main(["bench", "noise", "--rounds", "3"]) == 7
    assert started["words"][1:] == ["-m", "fogzo.cli", "bench", "noise", "--rounds", "3"]
    assert started["env"].items() >= _command.MALLOC.items()


@pytest.mark.parametrize("exact", [True, False])
def test_peers_take_our_steps(exact: bool) -> None:
    """The Function's values are ours bit for bit; the detach trick rounds once more."""
    ours = recipes.get("mnist").model(0)
    assert isinstance(ours, torch.nn.Sequential)
    generator = torch.Generator().manual_seed(1)
    batch = (
        torch.randn(64, 784, generator=generator),
        torch.randint(0, 10, (64,), generator=generator),
    )
    peer = peers.ste_model(peers.FunctionLinear if exact else peers.DetachLinear, ours)
    peer_step = peers.ste_step(peer, batch, 1e-2)
    step.check_equal("peer", peer_step, step.our_step(ours, fogzo.STE(ours), batch, 1e-2), exact)
    if exact:
        for mine, theirs in zip(ours.parameters(), peer.parameters(), strict=True):
            assert torch.equal(mine, theirs)


def test_a_different_peer_is_refused() -> None:
    values = iter([1.0, 1.0, 1.0, 1.5])

    def loss() -> torch.Tensor:
        return torch.tensor(next(values))

    with pytest.raises(_options.BenchError, match="loss 1.0 at step 1, expected our STE's 1.5"):
        step.check_equal("peer", loss, loss, True)


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> _options.Options:
    for name, value in _command.MALLOC.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_layers, "COUNT", 2)
    monkeypatch.setattr(_layers, "SIZE", (16, 2048))
    for name, value in {"COUNT": 1, "WIDTH": 16, "SEQUENCE": 8, "TOKENS": 32}.items():
        monkeypatch.setattr(_blocks, name, value)
    return _options.Options(repeat=1, compiled=False)


@pytest.mark.parametrize("name", [name for name in _command.BENCHES if name != "probe_matmul"])
def test_every_bench_runs(name: str, small: _options.Options) -> None:
    found = [case() for case in _command.BENCHES[name].cases(small)]
    assert found
    for one in found:
        assert one.peers()
        assert _report.ours_among(one.times)
        json.dumps(one.row(1, ["bench"]))
    bars = {most for one in found for most in (bar.most for bar in one.bars)}
    wanted = {
        "step": {1.05, 2.2, 1.7, 1.36, 1.12, 1.18},
        "perturb_quantize": {4.0, 2.0, 3.25, 1 / 6},
    }
    assert bars >= wanted.get(name, set())


def test_the_bound_of_a_step_spends_a_third_on_products() -> None:
    assert _blocks.cost(forward=10.0, products=6.0, step=30.0) == 1 + 2 * (4 + 2) / 30


def test_low_bit_blocks_equal_their_peers(small: _options.Options) -> None:
    """The peers quantize inputs too: without that their losses are not ours."""
    net = step._low_bit_blocks()
    for layer in (peers.DetachLinear, peers.FunctionLinear):
        for bits, same in ((8, True), (None, False)):
            plain = peers.ste_model(layer, _blocks.net(bits))
            inputs, targets = net.batch
            loss = torch.nn.functional.mse_loss(plain(inputs), targets).item()
            ours = torch.nn.functional.mse_loss(net.model(inputs), targets).item()
            assert (abs(loss - ours) < 1e-6 * ours) == same


@pytest.mark.parametrize("name", ["fake_quantize", "perturb_quantize", "quantize"])
def test_choices_reach_the_bench(name: str, small: _options.Options) -> None:
    options = dataclasses.replace(small, shape=(3, 8, 1024), bits=4)
    for case in _command.BENCHES[name].cases(options):
        shape = case().shape
        assert (shape["weights"], shape["size"], shape["grid"]) == (3, [8, 1024], "mid-rise 4")


@pytest.mark.parametrize(("bits", "grid"), [(1, "sign"), (1.58, "ternary")])
@pytest.mark.parametrize(
    "name", ["fake_quantize", "perturb_quantize", "quantize", "compute_scale", "hadamard_quantize"]
)
def test_sign_and_ternary_weights_are_measured(
    name: str, bits: float, grid: str, small: _options.Options
) -> None:
    for case in _command.BENCHES[name].cases(dataclasses.replace(small, bits=bits)):
        assert case().shape["grid"] == grid


@pytest.mark.parametrize("name", ["fake_quantize", "perturb_quantize"])
@pytest.mark.parametrize("own", [{"shape": (2, 8, 1024)}, {"bits": 4}], ids=str)
def test_a_choice_of_ones_own_has_no_bar(
    name: str, own: dict[str, object], small: _options.Options
) -> None:
    cases = _command.BENCHES[name].cases
    assert cases(small)[0]().bars
    assert not cases(dataclasses.replace(small, **own))[0]().bars
    same = dataclasses.replace(small, shape=(_layers.COUNT, *_layers.SIZE), bits=_layers.BITS)
    assert cases(same)[0]().bars


def test_probes_and_backend_reach_the_bench(small: _options.Options) -> None:
    options = dataclasses.replace(small, probes=2, backend="reference")
    found = _command.BENCHES["perturb_quantize"].cases(options)[0]()
    assert _report.ours_among(found.times) == ["reference n=1", "reference n=2"]
    assert found.bars == []


def test_calls_has_every_operation_and_a_bar_of_10_us_over_an_addition(
    small: _options.Options,
) -> None:
    names = {name.partition(",")[0] for name in calls.calls()}
    assert names == set(fogzo_kernels.capabilities())
    for case in calls.cases(small)[:12]:
        found = case()
        add = found.times["torch.add"].median
        most = pytest.approx(1 + 10e-6 / add, 1e-3)
        many = found.shape["call"].endswith("_many")
        assert [bar.most for bar in found.bars] == ([] if many else [most])


@pytest.mark.parametrize("dtype", _options.DTYPES[:3])
def test_probe_matmul_runs_on_a_shape_of_ones_own(dtype: str, small: _options.Options) -> None:
    options = dataclasses.replace(small, shape=(5, 24, 64), bits=4, dtype=dtype)
    (case,) = _command.BENCHES["probe_matmul"].cases(options)
    found = case()
    assert (found.shape["M"], found.shape["N"], found.shape["K"]) == (5, 24, 64)
    assert (found.shape["bits"], found.shape["x"]) == (4, dtype)
    assert found.operations == 2 * 5 * 24 * 64
    assert found.peak > 0


@pytest.mark.parametrize(
    ("bits", "dtype"), [(1, "int8"), (1.58, "int8"), (1, "float32"), (2, "bfloat16")]
)
def test_probe_matmul_runs_on_the_sides_of_probes(
    bits: float, dtype: str, small: _options.Options
) -> None:
    options = dataclasses.replace(small, shape=(5, 24, 64), bits=bits, dtype=dtype, probes=2)
    (case,) = _command.BENCHES["probe_matmul"].cases(options)
    found = case()
    assert (found.shape["sides"], found.shape["bits"]) == (4, bits)
    assert found.operations == 4 * 2 * 5 * 24 * 64
    assert "float32 linear" in found.peers()


def test_probes_leave_no_bar() -> None:
    cases = _command.BENCHES["probe_matmul"].cases(_options.Options(probes=1))
    assert {(case.args[0].sides, len(case.args[0].bars)) for case in cases} == {(2, 0)}


def test_probe_matmul_keeps_the_bars_of_the_cases_asked_for() -> None:
    cases = _command.BENCHES["probe_matmul"].cases
    assert len(cases(_options.Options())) == 14 + len(probe_matmul_flips.CASES)
    (case,) = cases(_options.Options(shape=(8, 768, 768), dtype="float32"))
    assert case.args[0].bars == {"float32": 0.95, "eager unpack": 4.0}


def test_flips_are_measured_against_packed_sides() -> None:
    case = probe_matmul_flips.Case(8, 16, 64, 2, "int8", 2, 0.01)
    found = probe_matmul_flips.run(case, _options.Options(repeat=1))
    assert found.peers() == ["packed sides"]
    assert found.shape["sides"] == 2
    assert found.operations == 2 * 2 * 8 * 16 * 64


def test_onnx_runtime_is_a_peer_where_it_is_installed(small: _options.Options) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    options = dataclasses.replace(small, shape=(5, 24, 64), bits=4, dtype="int8")
    assert "onnxruntime" in _command.BENCHES["probe_matmul"].cases(options)[0]().times


def test_onnx_runtime_says_why_it_is_not_a_peer(monkeypatch: pytest.MonkeyPatch) -> None:
    from fogzo_bench import onnx_peer

    monkeypatch.setattr(onnx_peer.importlib.util, "find_spec", lambda name: None)
    assert onnx_peer.missing(4, 64) == "onnx is not installed"
    monkeypatch.setattr(onnx_peer.importlib.util, "find_spec", lambda name: name)
    assert onnx_peer.missing(2, 64) == "it is built for 4 bits and rows of whole blocks of 32"
    assert onnx_peer.missing(4, 64) is None
