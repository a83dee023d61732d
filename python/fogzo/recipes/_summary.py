"""Results of all runs brought together: summary.json's rows and the table on stdout."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

COLUMNS = ("estimator", "seeds", "training loss", "test accuracy", "forwards", "seconds")


def _spread(values: list[float]) -> list[float]:
    """[mean, lowest, highest]."""
    return [sum(values) / len(values), min(values), max(values)]


def summary_rows(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row per estimator over its seeds, in the order they first ran.

    Args:
        results: one dict per run: estimator, seed, train_loss, test_accuracy, forwards, seconds.

    Returns:
        Rows with seeds (how many), train_loss and test_accuracy as [mean, low, high], forwards of
        one run and the mean seconds of one run.

    Example:
        >>> run = dict(estimator="ste", seed=0, train_loss=0.5, test_accuracy=0.9, forwards=3,
        ...            seconds=1.0)
        >>> summary_rows([run])[0]["train_loss"]
        [0.5, 0.5, 0.5]
    """
    rows = []
    for name in dict.fromkeys(result["estimator"] for result in results):
        runs = [result for result in results if result["estimator"] == name]
        rows.append(
            {
                "estimator": name,
                "seeds": len(runs),
                "train_loss": _spread([run["train_loss"] for run in runs]),
                "test_accuracy": _spread([run["test_accuracy"] for run in runs]),
                "forwards": runs[0]["forwards"],
                "seconds": sum(run["seconds"] for run in runs) / len(runs),
            }
        )
    return rows


def numbers(values: list[float | None]) -> list[float]:
    """The values with NaN for None, which a JSON file has for what was not finite."""
    return [math.nan if value is None else value for value in values]


def _range(values: list[float | None], digits: int, factor: float = 1.0) -> str:
    mean, low, high = (factor * value for value in numbers(values))
    text = f"{mean:.{digits}f}"
    return (
        text
        if low == high or math.isnan(mean)
        else f"{text} ({low:.{digits}f} .. {high:.{digits}f})"
    )


def cells(row: dict[str, Any]) -> tuple[str, ...]:
    """One row of the summary under COLUMNS."""
    return (
        str(row["estimator"]),
        str(row["seeds"]),
        _range(row["train_loss"], 4),
        _range(row["test_accuracy"], 2, 100) + " %",
        f"{row['forwards']:,}",
        f"{row['seconds']:.1f}",
    )


def aligned(lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """Lines of cells in columns, the first ``left`` of them to the left, the others right."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    found = []
    for line in lines:
        padded = [
            cell.ljust(w) if i < left else cell.rjust(w)
            for i, (cell, w) in enumerate(zip(line, widths, strict=True))
        ]
        found.append("  ".join(padded).rstrip())
    return found


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as aligned text: mean and (lowest .. highest) over seeds, one line a row."""
    return "\n".join(aligned([COLUMNS, *(cells(row) for row in rows)], 1))
