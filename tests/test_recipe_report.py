"""fogzo report: tables of finished runs and what differs between them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from fogzo.cli import main
from fogzo.recipes._summary import table

CONFIG = {"recipe": "mnist", "estimators": ["ste", "fogzo"], "steps": 10, "lr": None}
VERSIONS = {"torch": "2.13.0", "triton": None}


def a_row(name: str, loss: float, accuracy: float) -> dict[str, Any]:
    return {
        "estimator": name,
        "seeds": 2,
        "train_loss": [loss, loss - 0.1, loss + 0.1],
        "test_accuracy": [accuracy] * 3,
        "forwards": 3000,
        "seconds": 1.25,
    }


def run(folder: Path, rows: list[dict[str, Any]], **config: Any) -> Path:
    folder.mkdir()
    summary = {"config": CONFIG | config, "versions": VERSIONS, "rows": rows}
    (folder / "summary.json").write_text(json.dumps(summary))
    return folder


@pytest.fixture
def first(tmp_path: Path) -> Path:
    return run(tmp_path / "a", [a_row("ste", 0.5, 0.9), a_row("fogzo", 0.4, 0.925)])


@pytest.fixture
def second(tmp_path: Path) -> Path:
    rows = [a_row("fogzo", 0.45, 0.9), a_row("n-spsa", 2.0, 0.2)]
    return run(tmp_path / "b", rows, steps=20, lr=0.1, seeds=3)


def said(capsys: pytest.CaptureFixture[str], *words: object) -> list[str]:
    assert main(["report", *map(str, words)]) == 0
    return capsys.readouterr().out.splitlines()


def test_one_run_is_the_table_that_train_printed(first, capsys):
    rows = json.loads((first / "summary.json").read_text())["rows"]
    assert "\n".join(said(capsys, first)) == table(rows)
    assert said(capsys, first / "summary.json") == said(capsys, first)


def test_further_runs_have_differences_from_the_first(first, second, capsys):
    lines = said(capsys, first, second)
    assert lines[0].split("  ")[0] == "run"
    assert len({len(line) for line in lines[1:3]}) == 1
    assert lines[3].startswith(f"{second}  fogzo")
    assert lines[3].endswith("+0.0500                    -2.50 %")
    assert lines[4].startswith(f"{second}  n-spsa")
    assert lines[4].endswith("1.2")  # without a twin in the first
    assert lines[5:] == [
        "",
        f"{second} differs from {first} in:",
        "  steps: 20, not 10",
        "  lr: 0.1, not none",
        "  seeds: 3, not none",
    ]


def test_equal_runs_differ_in_nothing(first, tmp_path, capsys):
    rows = json.loads((first / "summary.json").read_text())["rows"]
    again = run(tmp_path / "again", rows)
    lines = said(capsys, first, again)
    assert lines[-2:] == [f"{again} differs from {first} in:", "  nothing"]
    assert "+0.0000" in lines[3]


def test_markdown_is_a_table(first, second, capsys):
    lines = said(capsys, first, second, "--markdown")
    assert lines[1] == "| " + " | ".join(["---"] * 9) + " |"
    assert all(line.count(" | ") == 8 for line in lines[:6])
    assert lines[-1] == "- seeds: 3, not none"
    alone = said(capsys, first, "--markdown")
    assert alone[2] == (
        "| ste | 2 | 0.5000 (0.4000 .. 0.6000) | 90.00 % | 3,000 | 1.2 |"
    )  # fmt: skip


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (None, "is not there, expected a folder in which `fogzo train` has finished"),
        ("nonsense", "is no JSON, expected a summary"),
        ('{"config": {}}', "lacks versions, rows, expected the summary.json of a run"),
        ("[]", "lacks config, versions, rows, expected the summary.json of a run"),
        (
            '{"config": {}, "versions": {}, "rows": [{"estimator": "ste"}, 3]}',
            "lacks estimator of a row, seeds of a row, train_loss of a row, test_accuracy of a "
            "row, forwards of a row, seconds of a row, expected the summary.json of a run",
        ),
    ],
)
def test_what_is_no_finished_run_is_an_error_line(text, says, first, tmp_path, capsys):
    if text is not None:
        (tmp_path / "summary.json").write_text(text)
    assert main(["report", str(first), str(tmp_path)]) == 1
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"fogzo: report: {tmp_path / 'summary.json'} {says}\n"


def test_a_loss_that_was_not_finite_is_nan(first, tmp_path, capsys):
    row = a_row("ste", 0.5, 0.9) | {"train_loss": [None, 0.5, None]}
    lines = said(capsys, first, run(tmp_path / "c", [row]))
    assert lines[3].split()[3] == "nan"
    assert lines[3].split()[-3:] == ["+nan", "+0.00", "%"]
