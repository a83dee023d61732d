"""`fogzo bench`: its options, a user's own peer, comparing rows, the table; nothing is timed."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from fogzo_bench import _command, _layers, _measure, _options, _report, _rows

from fogzo.cli import main


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """No new process, no tests before the numbers, small weights."""
    for name, value in _command.MALLOC.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(_command, "_tests_pass", lambda name: True)
    monkeypatch.setattr(_layers, "COUNT", 2)
    monkeypatch.setattr(_layers, "SIZE", (8, 1024))


def bench(*words: object) -> int:
    try:
        return main(["bench", *map(str, words)])
    except SystemExit as exit:
        return int(exit.code or 0)


def row(ours: float, *, peer: float = 1.0, op: str = "fake_quantize", most: float = 1.3) -> Any:
    """A row whose medians are given and whose noise is 2 % to either side."""

    def times(median: float) -> _measure.Times:
        return _measure.Times(median, 0.98 * median, 1.02 * median)

    return _report.Result(
        op=op,
        shape={"weights": 2, "size": [8, 8]},
        times={"cpu": times(ours), "eager": times(peer), "copy": times(peer)},
        bars=[_report.Bar("cpu", "eager", most)],
        copy=times(peer),
        copied=8,
    ).row(1, ["bench"])


def write(path: Path, *rows: Any) -> Path:
    path.write_text("".join(json.dumps(one) + "\n" for one in rows))
    return path


@pytest.mark.parametrize(
    ("now", "peer", "verdict", "code"),
    [
        (1.03, 1.0, "same", 0),  # 2 % of noise on either side
        (1.05, 1.0, "SLOWER", 1),
        (0.9, 1.0, "faster", 0),
        (1.5, 1.5, "same", 0),  # the whole machine is slower
        (1.0, 0.8, "SLOWER", 1),  # and here faster, which hides ours
    ],
)
def test_compare(
    now: float,
    peer: float,
    verdict: str,
    code: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    old, new = write(tmp_path / "old", row(1.0)), write(tmp_path / "new", row(now, peer=peer))
    assert bench("--compare", old, new) == code
    assert f"  {verdict.ljust(6)}  cpu: {now / peer:.3f} of the old time" in capsys.readouterr().out


def test_compare_takes_the_median_of_several_runs(tmp_path: Path) -> None:
    old = write(tmp_path / "old", row(1.0))
    assert bench("--compare", old, write(tmp_path / "a", row(1.0), row(1.01), row(3.0))) == 0
    assert bench("--compare", old, write(tmp_path / "b", row(2.0), row(2.0), row(3.0))) == 1


def test_compare_names_rows_that_only_one_file_has(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path / "old", row(1.0), row(1.0, op="noise"))
    new = write(tmp_path / "new", row(1.0), row(1.0, op="pack"))
    assert bench("--compare", old, new) == 0
    out = capsys.readouterr().out
    assert "not in NEW: noise" in out
    assert "not in OLD: pack" in out


def test_compare_misses_a_variant_of_ours_and_no_peer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    old = write(tmp_path / "old", row(1.0))
    for name, code in (("cpu", 1), ("eager", 0)):
        rows = row(1.0), row(1.0)
        del rows[1]["times"][name]  # one run of several has it not
        assert bench("--compare", old, write(tmp_path / "new", *rows)) == code
        assert (f"  GONE    {name}: not in NEW" in capsys.readouterr().out) == bool(code)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "no row of NEW has the op, shape and threads of one in OLD"),
        ("{}\n", "new line 1 is not a row of `fogzo bench --json`"),
        ("nonsense\n", "new line 1 is not a row"),
        (None, "new cannot be read"),
    ],
)
def test_compare_refuses_other_files(
    text: str | None, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if text is not None:
        (tmp_path / "new").write_text(text)
    assert bench("--compare", write(tmp_path / "old", row(1.0)), tmp_path / "new") == 1
    assert says in capsys.readouterr().err


def test_table_takes_medians_over_runs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rows = write(tmp_path / "rows", row(1.0), row(1.2), row(9.0))
    assert bench("--table", rows, write(tmp_path / "more", row(2.0, op="noise", most=1.5))) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| row | ratio of times | bar | measured |",
        "| --- | --- | --- | --- |",
        "| fake_quantize weights 2, size 8x8 | cpu / eager | 1.3 | 1.200 (3 runs) PASS |",
        "| noise weights 2, size 8x8 | cpu / eager | 1.5 | 2.000 (1 runs) **MISS** |",
    ]


def test_table_keeps_machines_apart(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = write(tmp_path / "a", *(row(n) | {"cpu": "A"} for n in (1.0, 1.1, 1.2)))
    others = row(2.0) | {"cpu": "B"}, row(1.0, op="noise") | {"cpu": "B"}
    assert bench("--table", first, write(tmp_path / "b", *others)) == 0
    assert capsys.readouterr().out.splitlines() == [
        "| row | ratio of times | bar | A | B |",
        "| --- | --- | --- | --- | --- |",
        "| fake_quantize weights 2, size 8x8 | cpu / eager | 1.3 | 1.100 (3 runs) PASS "
        "| 2.000 (1 runs) **MISS** |",
        "| noise weights 2, size 8x8 | cpu / eager | 1.3 |  | 1.000 (1 runs) PASS |",
    ]


def test_list_names_every_bench_and_its_choices(capsys: pytest.CaptureFixture[str]) -> None:
    assert bench("--list") == 0
    out = capsys.readouterr().out
    for name, module in _command.BENCHES.items():
        assert f"{name}: {module.ABOUT}\n" in out
        assert set(module.TAKES) <= set(_command.CHOICES)


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (["noise", "--bits", "4"], 2, "noise takes no --bits, expected one of --shape, --backend"),
        (["noise", "--bits", "9"], 2, "got '9', expected 1 (sign), 1.58 (ternary), 2..8"),
        (["noise", "--shape", "3"], 2, "got '3', expected MxNxK or NxK"),
        (["noise", "--shape", "0x3"], 2, "got '0x3', expected MxNxK or NxK"),
        (["noise", "--shape", "2x3x4"], 2, "--shape has 3 sizes, expected 2 as in 768x768"),
        (["noise", "--repeat", "0"], 2, "got '0', expected a whole number"),
        (["noise", "--backend", "triton"], 1, "--backend triton is not used: "),
        (["noise", "--peer", "absent.py"], 1, "--peer absent.py cannot be loaded"),
        (["noise", "--peer", "absent"], 2, "--peer has absent, expected a Python file"),
        (["noise", "--plot", "picture.jpg"], 2, "expected a name that ends in .png"),
        (["pack", "--bits", "3"], 2, "--bits 3 with rows of 1024, expected 1, 2, 4 or 8"),
        (["pack", "--bits", "1.58"], 2, "--bits 1.58 with rows of 1024, expected 1, 2, 4 or 8"),
        (["--shape", "3x3"], 2, "step takes no --shape, expected one of --model"),
    ],
)
def test_wrong_use_is_refused_before_anything_is_measured(
    words: list[str], code: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench(*words) == code
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.out == ""


def test_rows_and_picture_are_written_and_a_miss_exits_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("matplotlib")
    where = {"rows": tmp_path / "rows.jsonl", "picture": tmp_path / "rows.png"}
    words = ["quantize", "noise", "--repeat", 1, "--no-compile", "--json", where["rows"]]
    assert bench(*words, "--plot", where["picture"]) == 0
    assert [one["op"] for one in _rows.load(where["rows"])] == [
        "quantize", "dequantize", "noise", "noise",
    ]  # fmt: skip
    assert where["picture"].read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    monkeypatch.setattr(_report.Result, "passes", lambda self: False)
    assert bench("whitened_norm", "--repeat", 1, "--no-compile") == 1
    assert "whitened_norm: weights 2" in capsys.readouterr().out


def test_rows_that_cannot_be_written_are_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert bench("noise", "--repeat", 1, "--json", tmp_path) == 1
    assert "cannot be written (Is a directory)" in capsys.readouterr().err


PEER = """
import torch

def fake_quantize(ws, scales, grid):
    def call():
        half = 2 ** (grid.bits - 1)
        return [
            ((w * (1 / a) - 0.5).round().clamp(-half, half - 1) + 0.5) * a * {factor}
            for w, a in zip(ws, scales)
        ]
    return call

def perturb_quantize(ws, grads, scales, grid, kind, mix, u):
    along, across, radius = mix
    def call():
        found = []
        for number, (w, g, a) in enumerate(zip(ws, grads, scales)):
            noise = u[number] if u is not None else torch.randn_like(w)
            shift = (g * a * radius * along + noise * across) * a * radius
            found.append([
                (((w + side) / a - 0.5).round().clamp(-2, 1) + 0.5) * a * {factor}
                for side in (shift, -shift)
            ])
        return found
    return call

def noise(shape, kind):
    return {noise}
"""


@pytest.mark.parametrize("op", ["fake_quantize", "perturb_quantize", "noise"])
def test_a_users_peer_is_measured(
    op: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PEER.format(factor=1, noise="lambda: torch.randn(shape)"))
    bench(op, "--repeat", 1, "--no-compile", "--peer", path)
    out = capsys.readouterr().out
    assert "\n  mine.py " in out


@pytest.mark.parametrize(
    ("op", "says"),
    [
        ("fake_quantize", "fake_quantize: mine.py is off by"),
        ("perturb_quantize", "perturb_quantize: mine.py differs in 100.00% of the values"),
        ("noise", "mine.py: noise returned int, expected a call to time"),
    ],
)
def test_a_users_peer_that_is_not_equal_is_not_timed(
    op: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "mine.py"
    path.write_text(PEER.format(factor=1.001, noise="3"))
    assert bench(op, "--repeat", 1, "--no-compile", "--peer", path) == 1
    printed = capsys.readouterr()
    assert says in printed.err
    assert printed.out == ""


def test_a_peer_file_without_peers_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text("def something(): ...\n")
    assert bench("noise", "--peer", tmp_path / "mine.py") == 1
    assert "has no function named like a bench, expected one of step, noise" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("1 / 0\n", "mine.py cannot be loaded (ZeroDivisionError: division by zero)"),
        ("def noise(shape): ...\n", "mine.py: noise raised TypeError: noise() got an unexpected"),
    ],
)
def test_what_a_users_file_raises_is_named_with_the_file(
    text: str, says: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.py").write_text(text)
    assert bench("noise", "--peer", tmp_path / "mine.py") == 1
    assert says in capsys.readouterr().err


def test_peers_must_have_our_shapes() -> None:
    import torch

    with pytest.raises(_options.BenchError, match=r"mine has shapes \[\(2,\)\], expected \[\(3,\)"):
        _options.require_close("pack", "mine", torch.ones(2), torch.ones(3), 0)


def test_a_few_ties_may_turn() -> None:
    import torch

    turned = torch.zeros(20_000)
    turned[:2] = 1
    _options.require_close("quantize", "mine", turned, torch.zeros(20_000), 0, ties=1e-4)
    turned[:3] = 1
    with pytest.raises(_options.BenchError, match="mine is off by 1"):
        _options.require_close("quantize", "mine", turned, torch.zeros(20_000), 0, ties=1e-4)


def test_avx2_limits_torch_too(monkeypatch: pytest.MonkeyPatch) -> None:
    started: dict[str, str] = {}

    class Done:
        returncode = 0

    def run(words: list[str], env: dict[str, str]) -> Done:
        started.update(env)
        return Done()

    monkeypatch.setattr(_command.subprocess, "run", run)
    assert bench("noise", "--isa", "avx2") == 0
    assert started.items() >= _command.AVX2.items()
