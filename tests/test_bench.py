"""The bench harness: statistics, bars, rows and what happens when tests fail; nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from fogzo_bench import _command, _measure, _report, peers, step

import fogzo
from fogzo import recipes
from fogzo.cli import main


def times(median: float) -> _measure.Times:
    return _measure.Times(median, median / 2, median * 2)


def result(ours: float) -> _report.Result:
    return _report.Result(
        op="step",
        shape={"model": "mnist"},
        times={"a": times(1.0), "b": times(2.0), "ours": times(ours)},
        bars=[_report.Bar("ours", "a", 1.05)],
        copy=times(0.5),
        copied=10**9,
        moved={"ours": 10**9},
    )


def test_median_and_range_are_order_statistics() -> None:
    spread = _measure._spread([float(value) for value in range(100, -1, -1)])
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
    assert f"  {verdict}  ours / a: {ours:.3f}, bar 1.05" in found.lines()
    assert found.row(1, ["bench", "step"])["bars"][0]["pass"] == (verdict == "PASS")


def test_lines_give_bytes_and_share_of_a_plain_copy() -> None:
    (line,) = (line for line in result(1.0).lines() if line.startswith("  ours"))
    assert line.endswith("1.00 GB/s, 50 % of a plain copy")


def test_row_reproduces_the_measurement(tmp_path: Path) -> None:
    row = result(1.0).row(1, ["bench", "step", "--threads", "1"])
    for name in ("op", "shape", "commit", "dirty", "cpu", "load", "versions", "threads", "time"):
        assert name in row
    assert row["command"] == "fogzo bench step --threads 1"
    _report.append(tmp_path / "rows.jsonl", [row, row])
    lines = (tmp_path / "rows.jsonl").read_text().splitlines()
    assert [json.loads(line) for line in lines] == [row, row]


def test_committed_rows_are_readable() -> None:
    for path in (_report.SOURCE / "bench" / "results").glob("*.jsonl"):
        for line in path.read_text().splitlines():
            row = json.loads(line)
            assert row["dirty"] is False
            assert row["commit"]


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

    with pytest.raises(RuntimeError, match=r"peer has loss 1.0 at step 1, expected our STE's 1.5"):
        step.check_equal("peer", loss, loss, True)


def test_every_bench_runs(monkeypatch: pytest.MonkeyPatch) -> None:
    from fogzo_bench import _layers, assemble_gradient, fake_quantize, noise, perturb_quantize

    monkeypatch.setattr(_layers, "COUNT", 2)
    monkeypatch.setattr(_layers, "SIZE", (16, 2048))
    once = {"threads": 1, "rounds": 1}
    for kind in ("published", "rademacher"):
        assert set(noise.run(kind, **once).times) >= {"reference", "torch"}
        found = perturb_quantize.run(kind, compiled=False, **once)
        assert set(found.times) >= {"eager values", "eager values, in place", "read"}
        assert "eager, noise kept" in assemble_gradient.run(kind, **once).times
    assert set(fake_quantize.run(compiled=False, **once).times) >= {"eager", "copy"}
    found = step.run("mnist", threads=1, rounds=1, compile_peers=False)
    assert [bar.most for bar in found.bars] == [1.05, 2.2]
