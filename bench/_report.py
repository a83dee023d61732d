"""A bench's result: printed lines, bars, and the JSONL row with all that reproduces it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from fogzo._info import cpu_name, instruction_set, versions

from ._measure import Times

SOURCE = Path(__file__).resolve().parent.parent


@dataclass(frozen=True)
class Bar:
    """A required ratio: variant's time over the divisor's must be at most `most`."""

    variant: str
    divisor: str
    most: float


@dataclass
class Result:
    """One bench: what was measured, on which shape, and which bars it has to meet.

    moved: bytes that one call of each variant has to read and write (0 where that says little);
    operations: multiplications and additions of one call (0 where that says little);
    copy: times of torch's copy_ of copied bytes (read and written), the yardstick.
    """

    op: str
    shape: dict[str, Any]
    times: dict[str, Times]
    bars: list[Bar]
    copy: Times
    copied: int
    moved: dict[str, int] = field(default_factory=dict)
    operations: int = 0

    def ratio(self, bar: Bar) -> float:
        return self.times[bar.variant].median / self.times[bar.divisor].median

    def passes(self) -> bool:
        return all(self.ratio(bar) <= bar.most for bar in self.bars)

    def lines(self) -> list[str]:
        """The result for reading: a line a variant, then a line a bar."""
        shape = ", ".join(f"{name} {value}" for name, value in self.shape.items())
        copy_rate = self.copied / self.copy.median / 1e9
        lines = [f"{self.op}: {shape}"]
        width = max(len(name) for name in self.times)
        for name, times in self.times.items():
            line = (
                f"  {name.ljust(width)}  {times.median * 1e6:10.1f} us "
                f"({times.low * 1e6:.1f} .. {times.high * 1e6:.1f})"
            )
            if self.moved.get(name):
                rate = self.moved[name] / times.median / 1e9
                line += f"  {rate:7.2f} GB/s, {100 * rate / copy_rate:.0f} % of a plain copy"
            if self.operations:
                line += f"  {self.operations / times.median / 1e9:7.1f} GOP/s"
            lines.append(line)
        lines.append(f"  plain copy of {self.copied:,} bytes: {copy_rate:.2f} GB/s")
        for bar in self.bars:
            verdict = "PASS" if self.ratio(bar) <= bar.most else "MISS"
            found = f"{bar.variant} / {bar.divisor}: {self.ratio(bar):.3f}"
            lines.append(f"  {verdict}  {found}, bar {bar.most:.4g}")
        return lines

    def row(self, threads: int, command: list[str]) -> dict[str, Any]:
        """The JSON record; times in seconds, sizes in bytes."""
        commit, dirty = _commit()
        return {
            "op": self.op,
            "shape": self.shape,
            "times": {name: times.plain() for name, times in self.times.items()},
            "bytes": self.moved,
            "copy": {"bytes": self.copied, **self.copy.plain()},
            "bars": [
                {
                    "variant": bar.variant,
                    "divisor": bar.divisor,
                    "most": bar.most,
                    "ratio": self.ratio(bar),
                    "pass": self.ratio(bar) <= bar.most,
                }
                for bar in self.bars
            ],
            "commit": commit,
            "dirty": dirty,
            "cpu": cpu_name(),
            "cores": os.cpu_count(),
            "instruction_set": instruction_set(),
            "load": list(os.getloadavg()) if hasattr(os, "getloadavg") else None,
            "versions": versions(),
            "threads": threads,
            "command": " ".join(["fogzo", *command]),
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
        }


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


def append(path: Path, rows: list[dict[str, Any]]) -> None:
    """Append rows to a JSONL file."""
    with open(path, "a", encoding="utf-8") as file:
        for row in rows:
            file.write(json.dumps(row) + "\n")


def fastest(times: dict[str, Times], among: list[str]) -> str:
    """The name with the smallest median: the divisor where several peers are listed."""
    return min(among, key=lambda name: times[name].median)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def copy_yardstick(elements: int) -> tuple[Any, int]:
    """A call that copies float32 elements with torch, and the bytes it reads and writes."""
    source, target = torch.ones(elements), torch.empty(elements)
    return (lambda: target.copy_(source)), 8 * elements
