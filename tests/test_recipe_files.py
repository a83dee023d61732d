"""The files of a run folder: what is written stays whole, and what cannot be is an error."""

from __future__ import annotations

import errno
import io
import os
from pathlib import Path

import pytest

from fogzo.recipes._files import RunFolder, RunFolderError

needs_dev_full = pytest.mark.skipif(
    not Path("/dev/full").exists(), reason="/dev/full, a file on a full disk, is not here"
)


def fill_the_disk(folder: RunFolder) -> io.BufferedWriter:
    """From now on metrics.jsonl takes rows into its buffer alone."""
    folder._rows["metrics.jsonl"].close()
    full = io.BufferedWriter(io.FileIO("/dev/full", "wb"))
    folder._rows["metrics.jsonl"] = full
    return full


@needs_dev_full
def test_a_disk_that_is_full_at_close_is_an_error_and_every_file_is_closed(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "run")
    full = fill_the_disk(folder)
    folder.add("metrics.jsonl", {"step": 0})
    folder.add("timing.jsonl", {"step": 0})
    with pytest.raises(RunFolderError, match=r"run cannot be written \(No space left on device\)"):
        folder.__exit__(None, None, None)
    assert full.closed
    assert (tmp_path / "run" / "timing.jsonl").read_text() == '{"step": 0}\n'


@needs_dev_full
def test_what_went_wrong_first_is_what_is_said(tmp_path: Path) -> None:
    def diverge() -> None:
        with RunFolder.create(tmp_path / "run") as folder:
            fill_the_disk(folder)
            folder.add("metrics.jsonl", {"step": 0})
            raise FloatingPointError

    with pytest.raises(FloatingPointError):
        diverge()


@pytest.mark.parametrize("name", ["checkpoint.pt", "summary.json", "curves.png"])
def test_a_file_that_cannot_be_replaced_stays_as_it_was(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with RunFolder.create(tmp_path / "run") as folder:
        (folder.path / name).write_bytes(b"older")
        monkeypatch.setattr(os, "replace", full)
        write = {
            "checkpoint.pt": lambda: folder.checkpoint({}),
            "summary.json": lambda: folder.summary({}),
            "curves.png": lambda: folder.picture(b"newer"),
        }[name]
        with pytest.raises(RunFolderError, match="No space left on device"):
            write()
        assert (folder.path / name).read_bytes() == b"older"
    names = sorted(path.name for path in folder.path.iterdir())
    assert names == sorted([name, "metrics.jsonl", "timing.jsonl"])
