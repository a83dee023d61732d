"""Which kernel rows show ahead of another: the table that ships as fogzo_kernels/_ahead.py."""

from __future__ import annotations

from collections.abc import Iterable

from fogzo_kernels._ahead import Shown

from . import _rows
from ._rows import Row

Table = dict[str, dict[int, Shown]]
# variants of probe_matmul_cuda: products of warpgroups and of single warps
WGMMA, MMA = "cuda, wgmma", "cuda, mma"


def pairs(runs: list[Row]) -> Iterable[tuple[str, str, str]]:
    """(name in the table, variant, the one it may be ahead of) of the runs of one measurement."""
    names = dict.fromkeys(name for run in runs for name in run["times"])
    op = runs[0]["op"]
    for name in names:
        # "cuda n=4" and "triton n=4" are one measurement; what triton has no twin of is none
        twin = f"triton{name.removeprefix('cuda')}"
        if name.startswith("cuda") and twin in names:
            yield op, name, twin
    if WGMMA in names and MMA in names:
        yield f"{op}.wgmma.{runs[0]['shape']['x']}", WGMMA, MMA


def table(rows: list[Row]) -> Table:
    """What is ahead in every shape that was measured, by name and architecture.

    A kernel is ahead in a shape where the 90 % point of its times lies below the other's 10 %
    point. Rows of one measurement (op, shape, threads, GPU) count as one where their commit is
    equal; of several commits that measured both kernels the latest counts.
    """
    found: dict[tuple[str, int], list[Shown | None]] = {}
    for (_, arch), by_commit in _measurements(rows).items():
        latest: dict[tuple[str, str, str], list[Row]] = {}
        for runs in by_commit.values():
            latest |= dict.fromkeys(pairs(runs), runs)
        for (name, variant, other), runs in latest.items():
            found.setdefault((name, arch), []).append(_shown(runs, variant, other))
    result: Table = {}
    for (name, arch), verdicts in sorted(found.items()):
        ahead = [verdict for verdict in verdicts if verdict is not None]
        if len(ahead) == len(verdicts):
            worst = max(ahead, key=lambda verdict: verdict.ratio)
            result.setdefault(name, {})[arch] = worst
    return result


def _measurements(rows: list[Row]) -> dict[tuple[_rows.Key, int], dict[str, list[Row]]]:
    """Runs by measurement and architecture, then by commit, the oldest first."""
    found: dict[tuple[_rows.Key, int], dict[str, list[Row]]] = {}
    for row in sorted(rows, key=lambda row: str(row.get("time"))):
        if row.get("architecture") is not None and row.get("commit") and not row.get("dirty"):
            at = _rows.key(row), int(row["architecture"])
            found.setdefault(at, {}).setdefault(row["commit"], []).append(row)
    return found


def _shown(runs: list[Row], variant: str, other: str) -> Shown | None:
    """The measurement, or None where the variant is not ahead in it."""
    own, its = (
        _rows.spread([run["times"][name] for run in runs if name in run["times"]])
        for name in (variant, other)
    )
    if own["high"] >= its["low"]:
        return None
    ratio = round(own["median"] / its["median"], 4)
    return Shown(ratio, runs[0]["gpu"], runs[0]["commit"][:12])


def lines(rows: list[Row]) -> list[str]:
    """The table as fogzo_kernels/_ahead.py has it."""
    found = table(rows)
    if not found:
        return ["TABLE: dict[str, dict[int, Shown]] = {}"]
    body = []
    for name, by_arch in found.items():
        body += [f'    "{name}": {{']
        body += [
            f'        {arch}: Shown({row.ratio}, "{row.gpu}", "{row.commit}"),'
            for arch, row in by_arch.items()
        ]
        body += ["    },"]
    return ["TABLE: dict[str, dict[int, Shown]] = {", *body, "}"]
