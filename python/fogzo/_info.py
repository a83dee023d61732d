"""What runs here: fogzo_kernels' description, and what torch and fogzo add to it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from fogzo_kernels import _info


def versions() -> dict[str, str | None]:
    """Versions that may change a run's numbers, by distribution name."""
    return {**_info.versions(), "torch": str(torch.__version__)}


def info_object() -> dict[str, Any]:
    """Everything `fogzo info --json` prints.

    Returns:
        versions; cpu, cores, threads, instruction_set; device (the CUDA device's name or None);
        backends: by name None where used, else the reason why not; ahead: what committed rows put
        first on a GPU; files: by what they are.
    """
    from .recipes.mnist import DATA

    info = _info.described()
    return {
        **info,
        "versions": versions(),
        "threads": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "files": {"fogzo": str(Path(__file__).parent), **info["files"], "mnist": str(DATA)},
    }


def info_lines() -> list[str]:
    """The same for reading: one line a fact, `name: value`."""
    return _info.lines(info_object())
