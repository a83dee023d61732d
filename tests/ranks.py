"""Runs a function in two processes joined by gloo, for tests of training on several devices."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

COUNT = 2


def in_two_processes(function: Callable[[int], Any], folder: Path) -> list[Any]:
    """What ``function(rank)`` returns in each; an error in one fails the caller.

    Args:
        function: of a module that the processes can import.
        folder: an empty one, where they meet.
    """
    paths = [path for path in sys.path if path]
    mp.spawn(_run, args=(function, str(folder), paths), nprocs=COUNT)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(COUNT)]


def _run(rank: int, function: Callable[[int], Any], folder: str, paths: list[str]) -> None:
    sys.path[:0] = [path for path in paths if path not in sys.path]
    torch.set_num_threads(1)
    meeting = f"file://{folder}/meeting"
    dist.init_process_group("gloo", init_method=meeting, rank=rank, world_size=COUNT)
    try:
        torch.save(function(rank), Path(folder) / f"{rank}.pt")
    finally:
        dist.destroy_process_group()
