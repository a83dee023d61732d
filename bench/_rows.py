"""Committed rows: reading them, the median of several runs, comparing two files, a table."""

from __future__ import annotations

import json
import statistics
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ._options import BenchError
from ._report import YARDSTICKS, ours_among

Row = dict[str, Any]
Key = tuple[str, str, int, str]


def append(path: Path, row: Row) -> None:
    """Append one row to a JSONL file.

    Raises:
        BenchError: the file cannot be written.
    """
    try:
        with open(path, "a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
    except OSError as error:
        raise BenchError(f"{path} cannot be written ({error.strerror})") from error


def load(path: Path) -> list[Row]:
    """Rows of a JSONL file, in order.

    Raises:
        BenchError: a file that cannot be read, or a line that is no row.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise BenchError(f"{path} cannot be read ({error})") from error
    rows = []
    for number, line in enumerate(lines, 1):
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            row = None
        if not isinstance(row, dict) or not {"op", "shape", "times", "copy", "bars"} <= row.keys():
            raise BenchError(f"{path} line {number} is not a row of `fogzo bench --json`")
        rows.append(row)
    return rows


def key(row: Row) -> Key:
    """What makes two rows runs of one measurement: op, shape, threads and GPU."""
    shape = json.dumps(row["shape"], sort_keys=True)
    return row["op"], shape, int(row.get("threads", 1)), row.get("gpu") or ""


def _groups(rows: Iterable[Row]) -> dict[Key, list[Row]]:
    groups: dict[Key, list[Row]] = {}
    for row in rows:
        groups.setdefault(key(row), []).append(row)
    return groups


def _times(runs: list[Row]) -> dict[str, dict[str, float]]:
    """By variant the runs' median, lowest low and highest high; plain copy under ``copy``."""
    names = [name for name in runs[0]["times"] if all(name in run["times"] for run in runs)]
    samples = {name: [run["times"][name] for run in runs] for name in names}
    samples["copy"] = [run["copy"] for run in runs]
    return {name: spread(found) for name, found in samples.items()}


def spread(found: list[dict[str, float]]) -> dict[str, float]:
    """Times of several runs as one: the medians' median, the lowest low and the highest high."""
    return {
        "median": statistics.median(one["median"] for one in found),
        "low": min(one["low"] for one in found),
        "high": max(one["high"] for one in found),
    }


def compare(old: list[Row], new: list[Row]) -> tuple[list[str], bool]:
    """Ours in two sets of rows, corrected for the machine's own drift.

    drift = median over the peers and yardsticks of new / old; ours is slower where its new 10 %
    point, divided by the drift, lies above its old 90 % point: outside the noise of both. A variant
    of ours that a measurement of both files has in OLD alone is named, and counts as slower.

    Args:
        old, new: rows; several of one measurement count as one, by their median and whole range.

    Returns:
        (lines for reading, whether anything is slower or gone).

    Raises:
        BenchError: no measurement is in both.
    """
    before, after = _groups(old), _groups(new)
    shared = [one for one in before if one in after]
    if not shared:
        raise BenchError("no row of NEW has the op, shape and threads of one in OLD")
    lines, slower = [], False
    for name in ("cpu", "instruction_set", "torch_instruction_set", "versions"):
        values = [{json.dumps(row.get(name)) for row in rows} for rows in (old, new)]
        if values[0] != values[1]:
            lines.append(f"note: {name} differs: {' '.join(sorted(values[0] ^ values[1]))}")
    for one in shared:
        was, now = _times(before[one]), _times(after[one])
        common = [name for name in was if name in now]
        others = [name for name in common if name in YARDSTICKS or not ours_among([name])]
        drift = statistics.median(now[name]["median"] / was[name]["median"] for name in others)
        lines.append(f"{one[0]} {one[1]}: machine at {drift:.3f} of its old times")
        for name in ours_among(common):
            ratio = now[name]["median"] / was[name]["median"] / drift
            verdict = "same"
            if now[name]["low"] / drift > was[name]["high"]:
                verdict, slower = "SLOWER", True
            elif now[name]["high"] / drift < was[name]["low"]:
                verdict = "faster"
            lines.append(f"  {verdict.ljust(6)}  {name}: {ratio:.3f} of the old time")
        for name in ours_among(sorted(was.keys() - now.keys())):
            lines.append(f"  GONE    {name}: not in NEW")
            slower = True
    for label, rest in (
        ("NEW", before.keys() - after.keys()),
        ("OLD", after.keys() - before.keys()),
    ):
        lines += [f"not in {label}: {one[0]} {one[1]}" for one in sorted(rest)]
    return lines, slower


def bars(rows: list[Row]) -> dict[tuple[str, int], tuple[str, float, float, int]]:
    """Every bar, by measurement and place: what is divided, median ratio, bar, number of runs.

    The divisor is named by the first run; another fastest peer in a later one counts alike.
    """
    found = {}
    for (op, *_), every in _groups(rows).items():
        runs = [run for run in every if len(run["bars"]) == len(every[0]["bars"])]
        for at, first in enumerate(runs[0]["bars"]):
            ratio = statistics.median(run["bars"][at]["ratio"] for run in runs)
            what = f"{first['variant']} / {first['divisor']}"
            name = f"{op} {_short(runs[0]['shape'])}"
            found[name, at] = what, ratio, first["most"], len(runs)
    return found


def _short(shape: dict[str, Any]) -> str:
    def text(value: Any) -> str:
        return "x".join(map(str, value)) if isinstance(value, list) else str(value)

    return ", ".join(f"{name} {text(value)}" for name, value in shape.items())


def table(rows: list[Row]) -> list[str]:
    """A Markdown table of every bar, for each CPU the median over its runs, for the README."""
    of_cpu: dict[str, list[Row]] = {}
    for row in rows:
        of_cpu.setdefault(row.get("cpu") or "measured", []).append(row)
    by_cpu = [bars(own) for own in of_cpu.values()]
    heads = list(of_cpu) if len(of_cpu) > 1 else ["measured"]
    lines = [
        f"| row | ratio of times | bar | {' | '.join(heads)} |",
        "| --- " * (3 + len(heads)) + "|",
    ]
    for place in dict.fromkeys(place for own in by_cpu for place in own):
        found = [own.get(place) for own in by_cpu]
        what, _, most, _ = next(bar for bar in found if bar is not None)
        cells = " | ".join(map(_cell, found))
        lines.append(f"| {place[0]} | {what} | {most:.4g} | {cells} |")
    return lines


def _cell(bar: tuple[str, float, float, int] | None) -> str:
    if bar is None:
        return ""
    _, ratio, most, runs = bar
    verdict = "PASS" if ratio <= most else "**MISS**"
    return f"{ratio:.3f} ({runs} runs) {verdict}"
