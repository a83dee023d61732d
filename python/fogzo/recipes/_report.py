"""`fogzo report`: the tables of finished runs, and what differs between them."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ._files import SUMMARY, RunFolderError
from ._summary import COLUMNS, aligned, cells, numbers

FIELDS = {"config": dict, "versions": dict, "rows": list}
OF_A_ROW = ("estimator", "seeds", "train_loss", "test_accuracy", "forwards", "seconds")


def read(folder: Path) -> dict[str, Any]:
    """A run's summary.json.

    Raises:
        RunFolderError: not there (the run has not finished), or not one.
    """
    path = folder / SUMMARY if folder.is_dir() else folder
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise RunFolderError(
            f"report: {path} is not there, expected a folder in which `fogzo train` has finished"
        ) from None
    except ValueError:
        raise RunFolderError(f"report: {path} is no JSON, expected a summary") from None
    held = summary if isinstance(summary, dict) else {}
    lacking = [name for name, kind in FIELDS.items() if not isinstance(held.get(name), kind)]
    if not lacking:
        rows = [row if isinstance(row, dict) else {} for row in held["rows"]]
        lacking = [f"{name} of a row" for name in OF_A_ROW if not all(name in row for row in rows)]
    if lacking:
        raise RunFolderError(
            f"report: {path} lacks {', '.join(lacking)}, expected the summary.json of a run"
        )
    return held


def lines(runs: list[tuple[str, dict[str, Any]]], markdown: bool) -> list[str]:
    """The table of all runs' rows, and for further runs what differs from the first.

    Args:
        runs: names and summaries.
        markdown: a table of GitHub's Markdown, else aligned text.
    """
    head, rows = list(COLUMNS), []
    first = runs[0][1]
    several = len(runs) > 1
    if several:
        head = ["run", *head, "loss less the first's", "accuracy less the first's"]
    for name, summary in runs:
        for row in summary["rows"]:
            own = list(cells(row))
            if several:
                own = [name, *own, *_less(row, None if summary is first else first)]
            rows.append(own)
    text = _markdown([head, *rows]) if markdown else aligned([head, *rows], 2 if several else 1)
    for name, summary in runs[1:]:
        text += ["", f"{name} differs from {runs[0][0]} in:"]
        differing = _differing(first, summary)
        text += [f"- {what}" if markdown else f"  {what}" for what in differing or ["nothing"]]
    return text


def _less(row: dict[str, Any], first: dict[str, Any] | None) -> list[str]:
    """Differences of the means from the first run's of the same estimator; "" without one."""
    twins = [] if first is None else first["rows"]
    for twin in twins:
        if twin["estimator"] == row["estimator"]:
            loss, accuracy = (
                numbers(row[key])[0] - numbers(twin[key])[0]
                for key in ("train_loss", "test_accuracy")
            )
            return [f"{loss:+.4f}", f"{100 * accuracy:+.2f} %"]
    return ["", ""]


def _differing(first: dict[str, Any], other: dict[str, Any]) -> list[str]:
    found = []
    for part in ("config", "versions"):
        a, b = first[part], other[part]
        for key in dict.fromkeys([*a, *b]):
            if a.get(key) != b.get(key):
                found.append(f"{key}: {_words(b.get(key))}, not {_words(a.get(key))}")
    return found


def _words(value: Any) -> str:
    if isinstance(value, list):
        return ",".join(map(str, value))
    return "none" if value is None else str(value)


def _markdown(table: list[list[str]]) -> list[str]:
    rule = ["---"] * len(table[0])
    return ["| " + " | ".join(line) + " |" for line in [table[0], rule, *table[1:]]]


def report(args: argparse.Namespace) -> int:
    """Print the tables of finished runs.

    Args:
        args: runs, folders that `fogzo train` wrote; markdown, whether the table is Markdown.

    Returns:
        Exit code 0.

    Raises:
        RunFolderError: a folder without the summary of a finished run.
    """
    print("\n".join(lines([(str(run), read(run)) for run in args.runs], args.markdown)))
    return 0
