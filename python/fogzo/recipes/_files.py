"""The files of one run folder: written so that a killed process loses no finished checkpoint."""

from __future__ import annotations

import hashlib
import io
import json
import os
import warnings
from collections.abc import Iterable
from pathlib import Path
from typing import Any, BinaryIO, cast

import torch

from .._rows import encoded, finite, replace

METRICS, TIMING = "metrics.jsonl", "timing.jsonl"
CHECKPOINT, SUMMARY, CURVES = "checkpoint.pt", "summary.json", "curves.png"

# A checkpoint ends with its own checksum: one file, replaced in one step.
_MARK, _DIGEST = b"\nsha256 ", 64
_SEAL = len(_MARK) + _DIGEST
_FIELDS = {"config", "versions", "index", "run", "results", "lengths"}


class RunFolderError(Exception):
    """The output folder cannot be used as asked."""


def _sealed(data: bytes) -> bytes:
    return data + _MARK + hashlib.sha256(data).hexdigest().encode()


def _opened(sealed: bytes) -> bytes:
    """What ``_sealed`` was given; ValueError with the reason where that cannot be known."""
    data, mark, digest = sealed[:-_SEAL], sealed[-_SEAL:-_DIGEST], sealed[-_DIGEST:]
    if mark != _MARK:
        raise ValueError("it ends without a checksum, expected one of SHA-256")
    actual = hashlib.sha256(data).hexdigest().encode()
    if actual != digest:
        raise ValueError(
            f"its SHA-256 is {actual[:12].decode()}.., expected "
            f"{digest[:12].decode('ascii', 'backslashreplace')}.. as it was written"
        )
    return data


class RunFolder:
    """metrics.jsonl, timing.jsonl, checkpoint.pt and summary.json of one run.

    Rows are appended; a checkpoint records how long the row files were when it was written, and
    resuming cuts them back to that length, so that a continued file equals an uninterrupted one.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rows: dict[str, BinaryIO] = {}

    @classmethod
    def create(cls, path: Path) -> RunFolder:
        """Make a new run folder; an existing one must be empty."""
        try:
            path.mkdir(parents=True, exist_ok=True)
            entries = sorted(entry.name for entry in path.iterdir())
        except OSError as error:
            raise _unusable(path, error) from None
        if entries:
            hint = f" (--resume {path} continues it)" if CHECKPOINT in entries else ""
            raise RunFolderError(
                f"train: --out {path} has {len(entries)} entries ({entries[0]}, ...), "
                f"expected a new or empty folder{hint}"
            )
        folder = cls(path)
        folder._open("wb")
        return folder

    @classmethod
    def reopen(cls, path: Path, state: dict[str, Any]) -> RunFolder:
        """Open a run folder as it was when it wrote the checkpoint `state`."""
        for name, length in state["lengths"].items():
            size = (path / name).stat().st_size if (path / name).exists() else 0
            if size < length:
                raise RunFolderError(
                    f"train: --resume {path / name} has {size} bytes, expected at least the "
                    f"{length} of its checkpoint"
                )
        folder = cls(path)
        folder._open("r+b")
        for name, length in state["lengths"].items():
            file = folder._rows[name]
            file.truncate(length)
            file.seek(0, os.SEEK_END)
        return folder

    @staticmethod
    def read_checkpoint(folder: Path) -> dict[str, Any]:
        """The last checkpoint of a run folder."""
        path = folder / CHECKPOINT
        try:
            data = _opened(path.read_bytes())
        except FileNotFoundError:
            raise RunFolderError(
                f"train: --resume {folder} has no {CHECKPOINT}, expected a folder that "
                "`fogzo train` wrote"
            ) from None
        except (OSError, ValueError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            raise RunFolderError(
                f"train: {path} cannot be read ({reason}); {METRICS} and {TIMING} hold the steps "
                "that were done; start again with another --out"
            ) from None
        foreign = RunFolderError(
            f"train: {path} is not a checkpoint of this version of `fogzo train`, expected "
            f"{', '.join(sorted(_FIELDS))} in it"
        )
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of another program's pickle
                state = torch.load(io.BytesIO(data), weights_only=True)
        except Exception:  # there is no telling what such bytes run into
            raise foreign from None
        if not isinstance(state, dict) or not state.keys() >= _FIELDS:
            raise foreign
        return state

    def _open(self, mode: str) -> None:
        for name in (METRICS, TIMING):
            try:
                self._rows[name] = cast(BinaryIO, (self.path / name).open(mode))
            except OSError as error:
                raise _unusable(self.path, error) from None

    def add(self, name: str, row: dict[str, Any]) -> None:
        """Append one JSON object to metrics.jsonl or timing.jsonl."""
        try:
            self._rows[name].write(encoded(row))
        except OSError as error:
            raise _unusable(self.path, error) from None

    def checkpoint(self, state: dict[str, Any]) -> None:
        """Bring the rows to disk, then replace the checkpoint in one step."""
        buffer = io.BytesIO()
        try:
            lengths = {}
            for name, file in self._rows.items():
                file.flush()
                os.fsync(file.fileno())
                lengths[name] = file.tell()
            torch.save({**state, "lengths": lengths}, buffer)
            replace(self.path / CHECKPOINT, _sealed(buffer.getvalue()))
        except OSError as error:
            raise _unusable(self.path, error) from None

    def summary(self, summary: dict[str, Any]) -> None:
        """Write summary.json."""
        text = json.dumps(finite(summary), indent=2, allow_nan=False) + "\n"
        self._write(SUMMARY, text.encode())

    def picture(self, png: bytes) -> None:
        """Write curves.png."""
        self._write(CURVES, png)

    def _write(self, name: str, data: bytes) -> None:
        try:
            replace(self.path / name, data)
        except OSError as error:
            raise _unusable(self.path, error) from None

    def read(self, name: str) -> Iterable[dict[str, Any]]:
        """Rows of metrics.jsonl or timing.jsonl so far."""
        self._rows[name].flush()
        with open(self.path / name, encoding="utf-8") as file:
            for line in file:
                yield json.loads(line)

    def __enter__(self) -> RunFolder:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        failure: OSError | None = None
        for file in self._rows.values():
            try:
                file.close()
            except OSError as error:  # rows that the buffer still held
                failure = error
        if failure is not None and kind is None:  # else what went wrong first is what to say
            raise _unusable(self.path, failure) from None


def _unusable(path: Path, error: OSError) -> RunFolderError:
    reason = os.strerror(error.errno) if error.errno else str(error)
    return RunFolderError(f"train: --out {path} cannot be written ({reason})")
