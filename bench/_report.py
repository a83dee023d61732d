"""A bench's result: printed columns, bars, and the JSONL row with all that reproduces it."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import torch

from ._machine import SOURCE, origin
from ._measure import Times

__all__ = ["SOURCE", "Bar", "Result", "copy_yardstick", "fastest", "ours_among", "say"]

YARDSTICKS = ("read", "copy", "forward", "products", "roofline")
_OURS = frozenset({"cpu", "reference", "triton", "cuda", "our", "FOGZO", "NSPSA"})


@dataclass(frozen=True)
class Bar:
    """A required ratio: variant's time over the divisor's must be at most `most`."""

    variant: str
    divisor: str
    most: float


def ours_among(names: Iterable[str]) -> list[str]:
    """The variants that are this project's: named by a backend or an estimator."""
    return [name for name in names if name.replace(",", " ").split()[0] in _OURS]


@dataclass
class Result:
    """One bench: what was measured, on which shape, and which bars it has to meet.

    moved: bytes that one call of each variant has to read and write (0 where that says little);
    operations: multiplications and additions of one call (0 where that says little);
    copy: times of torch's copy_ of copied bytes (read and written), the yardstick;
    peak: operations a second of a large float32 matmul by torch, 0 where operations is;
    notes: lines to print below.
    """

    op: str
    shape: dict[str, Any]
    times: dict[str, Times]
    bars: list[Bar]
    copy: Times
    copied: int
    moved: dict[str, int] = field(default_factory=dict)
    operations: int = 0
    peak: float = 0.0
    notes: list[str] = field(default_factory=list)

    def ratio(self, bar: Bar) -> float:
        return self.times[bar.variant].median / self.times[bar.divisor].median

    def passes(self) -> bool:
        return all(self.ratio(bar) <= bar.most for bar in self.bars)

    def peers(self) -> list[str]:
        """What ours are compared with: everything but ours and the yardsticks."""
        ours = ours_among(self.times)
        return [
            name
            for name in self.times
            if name not in ours and name.partition(" ")[0] not in YARDSTICKS
        ]

    def ratios(self) -> dict[str, dict[str, float]]:
        """By variant of ours, its time over each peer's."""
        return {
            own: {peer: self.times[own].median / self.times[peer].median for peer in self.peers()}
            for own in ours_among(self.times)
        }

    def _cells(self, name: str) -> list[str]:
        times = self.times[name]
        cells = [
            name + (" *" if name in {bar.divisor for bar in self.bars} else ""),
            f"{times.median * 1e6:.1f}",
            f"{times.low * 1e6:.1f} .. {times.high * 1e6:.1f}",
        ]
        rate = self.moved.get(name, 0) / times.median / 1e9
        share = rate / (self.copied / self.copy.median / 1e9)
        cells += [f"{rate:.2f}", f"{100 * share:.0f} %"] if rate else ["", ""]
        speed = self.operations / times.median / 1e9
        cells.append(f"{speed:.1f}" if speed else "")
        cells.append(f"{100e9 * speed / self.peak:.0f} %" if speed and self.peak else "")
        for own in ours_among(self.times):
            cells.append(f"{self.times[own].median / times.median:.3f}")
        return cells

    def lines(self) -> list[str]:
        """The result for reading: a line a variant, then the yardsticks, then a line a bar."""
        shape = ", ".join(f"{name} {value}" for name, value in self.shape.items())
        head = ["variant", "median us", "10 - 90 %", "GB/s", "of copy", "GOP/s", "of peak"]
        head += [f"{own} / it" for own in ours_among(self.times)]
        table = [head, *(self._cells(name) for name in self.times)]
        used = [at for at in range(len(head)) if any(row[at] for row in table[1:])]
        widths = [max(len(row[at]) for row in table) for at in used]
        lines = [f"{self.op}: {shape}"]
        for row in table:
            cells = [row[at].rjust(width) for at, width in zip(used, widths, strict=True)]
            lines.append("  " + "  ".join([row[0].ljust(widths[0]), *cells[1:]]))
        if self.bars:
            lines.append("  * what a bar divides by: of several peers of a kind, the fastest")
        rate = self.copied / self.copy.median / 1e9
        lines.append(f"  plain copy of {self.copied:,} bytes: {rate:.2f} GB/s")
        if self.peak:
            lines.append(f"  peak, a large float32 matmul by torch: {self.peak / 1e9:.1f} GOP/s")
        lines += [f"  {note}" for note in self.notes]
        for bar in self.bars:
            verdict = "PASS" if self.ratio(bar) <= bar.most else "MISS"
            found = f"{bar.variant} / {bar.divisor}: {self.ratio(bar):.3f}"
            lines.append(f"  {verdict}  {found}, bar {bar.most:.4g}")
        return lines

    def row(self, threads: int, command: list[str]) -> dict[str, Any]:
        """The JSON record; times in seconds, sizes in bytes, peak in operations a second."""
        return {
            "op": self.op,
            "shape": self.shape,
            "times": {name: times.plain() for name, times in self.times.items()},
            "ours": ours_among(self.times),
            "ratios": self.ratios(),
            "bytes": self.moved,
            "operations": self.operations,
            "copy": {"bytes": self.copied, **self.copy.plain()},
            "peak": self.peak,
            "notes": self.notes,
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
            **origin(threads, command),
        }


def fastest(times: dict[str, Times], among: list[str]) -> str:
    """The name with the smallest median: the divisor where several peers are listed."""
    return min(among, key=lambda name: times[name].median)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def copy_yardstick(elements: int) -> tuple[Any, int]:
    """A call that copies float32 elements with torch, and the bytes it reads and writes."""
    source, target = torch.ones(elements), torch.empty(elements)
    return (lambda: target.copy_(source)), 8 * elements


def matmul_yardstick(size: int = 768) -> tuple[Any, int]:
    """A call that multiplies float32 matrices with torch, and its operations: the peak."""
    left, right, out = torch.ones(size, size), torch.ones(size, size), torch.empty(size, size)
    return (lambda: torch.mm(left, right, out=out)), 2 * size**3
