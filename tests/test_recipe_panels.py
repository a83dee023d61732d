"""fogzo plot: curves from the rows of a run or a logger, and its error lines."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

import fogzo
from fogzo.cli import main
from fogzo.recipes._panels import MOST, draw, panels, read

PNG = b"\x89PNG\r\n\x1a\n"


def row(step: int, estimator: str = "fogzo", **more: Any) -> dict[str, Any]:
    return {"estimator": estimator, "step": step, "train_loss": 1.0, "forwards": 5} | more


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(r) + "\n" for r in rows))
    return path


def test_curves_are_means_over_windows():
    rows = [
        row(i, train_loss=float(i), gamma=0.5, difference=[float(i)], predicted=[2.0])
        for i in range(120)
    ]
    found = panels(rows)
    assert list(found) == ["loss", "ratio", "gamma"]
    assert found["loss"]["fogzo"] == [(2.0 * k + 2, 2 * k + 0.5) for k in range(60)]
    assert found["ratio"]["fogzo"] == [(2.0 * k + 2, (2 * k + 0.5) / 2) for k in range(60)]
    assert set(found["gamma"]["fogzo"]) == {(2.0 * k + 2, 0.5) for k in range(60)}


def test_ratio_is_the_slope_through_all_probes_of_a_window():
    rows = [row(0, difference=[3.0, -1.0, None], predicted=[2.0, 1.0, 5.0])]
    rows += [row(1, difference=[1.0], predicted=[None]), row(2, difference=[0.0], predicted=[0.0])]
    assert panels(rows)["ratio"] == {"fogzo": [(1, (6.0 - 1.0) / 5.0)]}


def test_flips_and_oscillation_are_of_weights_where_there_is_one_estimator():
    rows = [row(i, flips={"a": i, "b": 3}, oscillation={"a": 0.5, "b": 0.25}) for i in range(2)]
    found = panels(rows)
    assert found["flips"] == {"a": [(1, 0), (2, 1)], "b": [(1, 3), (2, 3)]}
    assert found["oscillation"] == {"a": [(1, 0.5), (2, 0.5)], "b": [(1, 0.25), (2, 0.25)]}
    found = panels([*rows, row(0, "ste", flips={}), row(0, "other", flips={"a": 7})])
    assert found["flips"] == {"fogzo": [(1, 3), (2, 4)], "other": [(1, 7)]}
    assert found["oscillation"] == {"fogzo": [(1, 0.375), (2, 0.375)]}


def test_no_more_weights_than_can_be_read():
    found = panels([row(0, flips={str(i): i for i in range(20)})])
    assert list(found["flips"]) == [str(i) for i in range(20 - MOST, 20)]


def test_losses_that_are_null_make_no_point_and_seeds_are_taken_together():
    rows = [row(0, train_loss=None, seed=0), row(1, train_loss=2.0, seed=0)]
    rows += [row(0, train_loss=None, seed=1), row(1, train_loss=4.0, seed=1)]
    assert panels(rows)["loss"] == {"fogzo": [(2, 3.0)]}


def test_a_picture_of_a_loggers_file(tmp_path, capsys):
    torch.manual_seed(0)
    model = fogzo.quantize_(torch.nn.Sequential(torch.nn.Linear(8, 8)))
    est = fogzo.FOGZO(model)
    x = torch.randn(4, 8)
    with fogzo.Logger(est, tmp_path / "log.jsonl") as logger:
        for _ in range(4):
            est.backward(lambda: model(x).square().mean())
            logger.log()
    assert main(["plot", str(tmp_path / "log.jsonl")]) == 0
    out = tmp_path / "log.png"
    said = capsys.readouterr().out
    assert said == f"picture: {out} (loss, ratio, flips, gamma, oscillation)\n"
    assert out.read_bytes()[:8] == PNG
    other = tmp_path / "new" / "p.png"
    assert main(["plot", str(tmp_path / "log.jsonl"), "--out", str(other)]) == 0
    assert other.read_bytes() == out.read_bytes()


def test_a_picture_of_a_run_folder_is_in_it(tmp_path, capsys):
    (tmp_path / "run").mkdir()
    write(tmp_path / "run" / "metrics.jsonl", [row(i, gamma=10.0**-i) for i in range(4)])
    assert main(["plot", str(tmp_path / "run")]) == 0
    assert (tmp_path / "run" / "panels.png").read_bytes()[:8] == PNG
    assert "(loss, gamma)" in capsys.readouterr().out


def test_a_scale_of_decades_where_values_are_apart():
    assert draw(panels([row(0, gamma=1.0), row(1, gamma=1e-4)]), "t")[:8] == PNG


def test_a_last_line_that_was_cut_is_left_out(tmp_path):
    path = write(tmp_path / "log.jsonl", [row(0), row(1)])
    with path.open("ab") as file:
        file.write(b'{"estimator": "fog')
    assert [r["step"] for r in read(path)] == [0, 1]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "has no rows, expected one a step"),
        ("nonsense\n", "line 1 is no row, expected an object with estimator, step and train_loss"),
        ('{"step": 1}\n', "line 1 is no row, expected"),
        ("[1]\n", "line 1 is no row, expected"),
    ],
)
def test_what_is_no_log_is_an_error_line(text, says, tmp_path, capsys):
    path = tmp_path / "log.jsonl"
    path.write_text(text)
    assert main(["plot", str(path)]) == 1
    error = capsys.readouterr().err
    assert error.startswith(f"fogzo: plot: {path} ")
    assert says in error
    assert error.count("\n") == 1


def test_a_run_that_is_not_there_is_an_error_line(tmp_path, capsys):
    assert main(["plot", str(tmp_path)]) == 1
    assert f"fogzo: plot: {tmp_path / 'metrics.jsonl'} is not there" in capsys.readouterr().err


def test_the_rows_are_not_written_over(tmp_path, capsys):
    path = write(tmp_path / "log.jsonl", [row(0)])
    before = path.read_bytes()
    assert main(["plot", str(path), "--out", str(path)]) == 2
    assert "expected another file than the rows" in capsys.readouterr().err
    assert path.read_bytes() == before


def test_without_matplotlib_it_says_what_to_install(tmp_path, monkeypatch, capsys):
    path = write(tmp_path / "log.jsonl", [row(0)])
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    assert main(["plot", str(path)]) == 1
    error = capsys.readouterr().err
    assert "log.png is not drawn (" in error
    assert "pip install 'fogzo-kernels[train]'" in error
    assert sorted(tmp_path.iterdir()) == [path]


def test_windows_of_a_long_run():
    found = panels([row(i, train_loss=1.0) for i in range(100_000, 100_600)])
    assert all(math.isfinite(y) for _, y in found["loss"]["fogzo"])
    assert len(found["loss"]["fogzo"]) <= 60
