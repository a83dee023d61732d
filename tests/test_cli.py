"""The command line: exit codes, error texts, files, interruption and resuming."""

from __future__ import annotations

import errno
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fogzo.cli import main
from fogzo.recipes._files import RunFolder, _sealed
from fogzo.recipes._run import Session

TINY = ["--seeds", "1", "--threads", "1", "--estimators", "ste,fogzo,n-spsa"]
FIELDS = [
    "estimator", "seed", "step", "train_loss", "gamma", "forwards", "difference", "predicted",
    "flips",
]  # fmt: skip


def train(*words: object) -> int:
    return main(["train", "mnist", "--quiet", *map(str, words)])


def start(*words: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "fogzo.cli", "train", "mnist", *map(str, words)]
    return subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ}
    )


def wait_for_rows(folder: Path, rows: int) -> None:
    """Wait until a checkpoint lies `rows` rows or more into the metrics."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        path = folder / "metrics.jsonl"
        if (folder / "checkpoint.pt").exists() and path.read_bytes().count(b"\n") >= rows:
            return
        time.sleep(0.01)
    raise TimeoutError(f"{folder} has no {rows} rows after 60 s")


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An uninterrupted run of 3 x 60 steps."""
    out = tmp_path_factory.mktemp("whole") / "run"
    assert train(*TINY, "--steps", 60, "--out", out) == 0
    return out


def test_equal_runs_write_equal_bytes(whole: Path, tmp_path: Path) -> None:
    assert train(*TINY, "--steps", 60, "--out", tmp_path / "again") == 0
    first = (whole / "metrics.jsonl").read_bytes()
    assert first == (tmp_path / "again" / "metrics.jsonl").read_bytes()


def test_files_hold_what_is_promised(whole: Path) -> None:
    rows = [json.loads(line) for line in (whole / "metrics.jsonl").read_text().splitlines()]
    assert len(rows) == 180
    assert all(list(row) == FIELDS for row in rows)
    assert [row["forwards"] for row in rows if row["step"] == 1] == [6, 10, 6]
    assert {name: row["gamma"] for row in rows if (name := row["estimator"])} == {
        "ste": None,
        "fogzo": 1 / 7940,
        "n-spsa": 1.0,
    }
    guided = [row for row in rows if row["estimator"] == "fogzo"]
    assert all(len(row["difference"]) == len(row["predicted"]) == 1 for row in guided)
    assert sum(sum(row["flips"].values()) for row in guided) > 0
    timing = [json.loads(line) for line in (whole / "timing.jsonl").read_text().splitlines()]
    assert len(timing) == 180
    assert all(row["seconds"] > 0 for row in timing)
    assert (whole / "curves.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    summary = json.loads((whole / "summary.json").read_text())
    assert set(summary) == {"config", "versions", "rows"}
    assert summary["config"]["steps"] == 60
    for row in summary["rows"]:
        assert set(row) == {
            "estimator", "seeds", "train_loss", "test_accuracy", "forwards", "seconds",
        }  # fmt: skip
        mean, low, high = row["train_loss"]
        assert low <= mean <= high


def test_table_is_printed(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--resume", whole) == 0
    printed = capsys.readouterr()
    assert printed.err == ""
    lines = printed.out.splitlines()
    assert lines[0].split() == [
        "estimator", "seeds", "training", "loss", "test", "accuracy", "forwards", "seconds",
    ]  # fmt: skip
    assert [line.split()[0] for line in lines[1:4]] == ["ste", "fogzo", "n-spsa"]
    assert lines[4] == f"picture: {whole / 'curves.png'}"


def test_sigint_then_resume_equals_the_whole_run(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*TINY, "--steps", 60, "--out", out, "--checkpoint-seconds", 0)
    wait_for_rows(out, 65)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert f"continue with: fogzo train mnist --resume {out}" in err
    assert "\r" not in err
    done = (out / "metrics.jsonl").read_bytes()
    assert 65 <= done.count(b"\n") < 180
    assert train("--resume", out) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert _numbers(out) == _numbers(whole)


def _numbers(folder: Path) -> list[object]:
    rows = json.loads((folder / "summary.json").read_text())["rows"]
    return [(row["train_loss"], row["test_accuracy"], row["forwards"]) for row in rows]


def test_sigint_before_the_first_step_leaves_a_run_to_resume(
    whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    warm_up = Session.warm_up

    def interrupted(session: Session) -> None:
        os.kill(os.getpid(), signal.SIGINT)
        warm_up(session)

    with monkeypatch.context() as patch:
        patch.setattr(Session, "warm_up", interrupted)
        assert train(*TINY, "--steps", 60, "--out", out) == 130
    assert "interrupted after 1 of 180 steps; continue with: fogzo" in capsys.readouterr().err
    assert train("--resume", out) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_sigkill_then_resume_equals_the_whole_run(whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    process = start(*TINY, "--steps", 60, "--out", out, "--checkpoint-seconds", 0)
    wait_for_rows(out, 30)
    process.kill()
    process.communicate(timeout=60)
    with (out / "metrics.jsonl").open("ab") as file:
        file.write(b'{"estimator": "ste", "se')
    assert train("--resume", out, "--steps", 60) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--steps", 61), "steps got 61, expected 60"),
        (("--seeds", 2), "seeds got 2, expected 1"),
        (("--estimators", "ste"), "estimators got ste, expected ste,fogzo,n-spsa"),
        (("--batch-size", 8), "batch_size got 8, expected 512"),
        (("--lr", 0.5), "lr got 0.5, expected the recipe's rates as that run began"),
        (("--threads", 2), "threads got 2, expected 1"),
        (("--out", "elsewhere"), "--out has elsewhere, expected"),
    ],
)
def test_resume_with_another_configuration_is_refused(
    whole: Path,
    words: tuple[object, ...],
    says: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    before = {path.name: path.read_bytes() for path in whole.iterdir()}
    assert train("--resume", whole, *words) == 2
    assert says in capsys.readouterr().err
    assert before == {path.name: path.read_bytes() for path in whole.iterdir()}


def test_resume_of_nothing_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--resume", tmp_path) == 1
    assert "has no checkpoint.pt, expected a folder that" in capsys.readouterr().err


def test_resume_from_damaged_files_is_refused(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("metrics.jsonl", "timing.jsonl", "checkpoint.pt"):
        (tmp_path / name).write_bytes((whole / name).read_bytes())
    (tmp_path / "metrics.jsonl").write_bytes(b"{}\n")
    assert train("--resume", tmp_path) == 1
    assert "metrics.jsonl has 3 bytes, expected at least" in capsys.readouterr().err


def resume_error(folder: Path, checkpoint: bytes, capsys: pytest.CaptureFixture[str]) -> str:
    (folder / "checkpoint.pt").write_bytes(checkpoint)
    assert train("--resume", folder) == 1
    err = capsys.readouterr().err
    assert err.startswith(f"fogzo: train: {folder / 'checkpoint.pt'} ")
    assert err.count("\n") == 1
    assert [path.name for path in folder.iterdir()] == ["checkpoint.pt"]
    return err


def test_any_damage_to_a_checkpoint_is_seen(
    whole: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sound = (whole / "checkpoint.pt").read_bytes()
    go_on = "metrics.jsonl and timing.jsonl hold the steps that were done; start again with another"
    for at in (0, len(sound) // 3, len(sound) // 2, len(sound) - 80, len(sound) - 1):
        flipped = bytearray(sound)
        flipped[at] ^= 1
        err = resume_error(tmp_path, bytes(flipped), capsys)
        assert "cannot be read (its SHA-256 is " in err
        assert "as it was written" in err
        assert go_on in err
    for other in (b"", b"not a checkpoint", sound[:-1], sound[: len(sound) // 2]):
        err = resume_error(tmp_path, other, capsys)
        assert "cannot be read (it ends without a checksum, expected one of SHA-256)" in err
        assert go_on in err


def test_a_checkpoint_of_something_else_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with RunFolder.create(tmp_path / "run") as folder:
        folder.checkpoint({"other": 1})
    other = (tmp_path / "run" / "checkpoint.pt").read_bytes()
    (tmp_path / "resumed").mkdir()
    err = resume_error(tmp_path / "resumed", other, capsys)
    text = "is not a checkpoint of this version of `fogzo train`, expected config, index,"
    assert text in err
    for foreign in (b"", b"not torch's", pickle.dumps(print), other[:99]):
        assert text in resume_error(tmp_path / "resumed", _sealed(foreign), capsys)


def test_used_out_is_refused(whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert train("--steps", 1, "--out", whole) == 1
    err = capsys.readouterr().err
    assert "expected a new or empty folder" in err
    assert f"--resume {whole} continues it" in err


def test_unwritable_out_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("in the way")
    assert train("--steps", 1, "--out", tmp_path / "file" / "run") == 1
    err = capsys.readouterr().err
    assert err == f"fogzo: train: --out {tmp_path}/file/run cannot be written (Not a directory)\n"


def test_full_disk_is_an_error_and_resumable(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    calls = 0

    def full(descriptor: int) -> None:
        nonlocal calls
        calls += 1
        if calls > 40:
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    out = tmp_path / "run"
    assert train(*TINY, "--steps", 60, "--out", out, "--checkpoint-seconds", 0) == 1
    err = capsys.readouterr().err
    assert err == f"fogzo: train: --out {out} cannot be written (No space left on device)\n"
    monkeypatch.undo()
    assert train("--resume", out) == 0
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()


def test_a_picture_that_cannot_be_drawn_is_an_error_and_loses_nothing(
    whole: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing(*_: object) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    out = tmp_path / "run"
    shutil.copytree(whole, out)
    for name in ("summary.json", "curves.png"):
        (out / name).unlink()
    monkeypatch.setattr("fogzo.recipes._train.draw", failing)
    assert train("--resume", out) == 1
    err = capsys.readouterr().err
    assert err == (
        f"fogzo: train: {out / 'curves.png'} is not drawn ([Errno 5] Input/output error); "
        "the other files are complete\n"
    )
    assert (out / "metrics.jsonl").read_bytes() == (whole / "metrics.jsonl").read_bytes()
    assert _numbers(out) == _numbers(whole)
    monkeypatch.undo()
    assert train("--resume", out) == 0
    assert (out / "curves.png").exists()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="/dev/full is not here")
def test_output_to_a_full_disk_is_an_error_line() -> None:
    with open("/dev/full", "wb") as full:
        words = [sys.executable, "-m", "fogzo.cli", "info"]
        done = subprocess.run(words, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (done.returncode, done.stderr) == (1, "fogzo: output: No space left on device\n")


def test_closed_stdout_is_no_traceback() -> None:
    words = f"{sys.executable} -m fogzo.cli info"
    done = subprocess.run(
        ["bash", "-c", f"{words} | true; exit ${{PIPESTATUS[0]}}"], capture_output=True, text=True
    )
    assert "Traceback" not in done.stderr


def test_missing_data_is_an_error_before_anything_is_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert train("--steps", 1, "--out", tmp_path / "run", "--data", tmp_path) == 1
    assert "train-images-idx3-ubyte.gz cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_ends_with_an_error(tmp_path: Path, capsys) -> None:
    words = ["--estimators", "ste:lr=1e38", "--seeds", 1, "--steps", 20, "--out", tmp_path / "run"]
    assert train(*words) == 1
    assert "STE.backward: closure returned nan, expected a finite loss" in capsys.readouterr().err
