"""What a row says of where it comes from: commit, machine, versions, load."""

from __future__ import annotations

import os
import subprocess
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fogzo._info import versions
from fogzo_kernels._info import cpu_name, instruction_set

from . import _device

SOURCE = Path(__file__).resolve().parent.parent


def _git(*words: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(SOURCE), *words], capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _commit() -> tuple[str | None, bool | None]:
    """Commit of the source tree that this code lies in and whether it has changes; else None."""
    top = _git("rev-parse", "--show-toplevel")
    if top is None or Path(top).resolve() != SOURCE:
        return None, None
    return _git("rev-parse", "HEAD"), bool(
        _git("status", "--porcelain", "--", ".", ":!bench/results")
    )


def _published(word: str) -> str:
    """A word of a command line without the folders of this machine."""
    option, equals, value = word.rpartition("=")
    return f"{option}{equals}{Path(value).name}" if Path(value).is_absolute() else word


def origin(threads: int, command: list[str]) -> dict[str, Any]:
    """The part of a row that reproduces it."""
    commit, dirty = _commit()
    return {
        "commit": commit,
        "dirty": dirty,
        "cpu": cpu_name(),
        "gpu": _device.gpu_name(),
        "architecture": _device.architecture(),
        "cores": os.cpu_count(),
        "instruction_set": instruction_set(),
        "torch_instruction_set": torch.backends.cpu.get_cpu_capability(),
        "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
        "threads": threads,
        "command": " ".join(["fogzo", *map(_published, command)]),
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
    }
