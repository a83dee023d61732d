"""Which kernel the committed rows show ahead of another on a GPU: what ``auto`` takes for that.

``fogzo bench --ahead bench/results/*.jsonl`` makes the table of the rows that lie there; ``fogzo
info`` prints it.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass


@dataclass(frozen=True)
class Shown:
    """A kernel's time over the other's, the largest of all shapes measured; where and when.

    gpu: its name. commit: 12 digits.
    """

    ratio: float
    gpu: str
    commit: str

    def text(self, other: str) -> str:
        """Why it is chosen.

        Example:
            >>> Shown(0.8125, "NVIDIA H200", "0123456789ab").text("triton")
            '0.812 of the time of triton at most on NVIDIA H200, commit 0123456789ab'
        """
        where = f"{self.gpu}, commit {self.commit}"
        return f"{self.ratio:.3f} of the time of {other} at most on {where}"


# An operation: cuda before triton. probe_matmul.wgmma.<dtype of x>: products of warpgroups before
# those of warps. To each, architectures (90 for compute capability 9.0).
TABLE: dict[str, dict[int, Shown]] = {}


def other_of(name: str) -> str:
    """What a name of the table is ahead of.

    Example:
        >>> other_of("noise"), other_of("probe_matmul.wgmma.int8")
        ('triton', 'mma')
    """
    return "mma" if ".wgmma." in name else "triton"


def shown(name: str) -> Shown | None:
    """The measurement that puts a kernel first on the current GPU, None where there is none."""
    rows = TABLE.get(name)
    return None if rows is None else rows.get(_architecture())


@functools.cache
def _architecture() -> int:
    """Of the GPU that was current when it was asked first; 0 without one."""
    import torch

    if not torch.cuda.is_available():
        return 0
    major, minor = torch.cuda.get_device_capability()
    return 10 * major + minor


def lines() -> list[str]:
    """The table for reading, a line a row.

    Example:
        >>> lines()  # doctest: +SKIP
        ['probe_matmul on sm_90: 0.812 of the time of triton at most on NVIDIA H200, commit ...']
    """
    return [
        f"{name} on sm_{arch}: {row.text(other_of(name))}"
        for name, rows in TABLE.items()
        for arch, row in sorted(rows.items())
    ]
