"""Results of all runs brought together: summary.json's rows and the table on stdout."""

from __future__ import annotations

from typing import Any

_COLUMNS = ("estimator", "seeds", "training loss", "test accuracy", "forwards", "seconds")


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


def _range(values: list[float], digits: int, factor: float = 1.0) -> str:
    mean, low, high = (factor * value for value in values)
    text = f"{mean:.{digits}f}"
    return text if low == high else f"{text} ({low:.{digits}f} .. {high:.{digits}f})"


def table(rows: list[dict[str, Any]]) -> str:
    """The summary as aligned text: mean and (lowest .. highest) over seeds, one line a row."""
    cells = [_COLUMNS] + [
        (
            str(row["estimator"]),
            str(row["seeds"]),
            _range(row["train_loss"], 4),
            _range(row["test_accuracy"], 2, 100) + " %",
            f"{row['forwards']:,}",
            f"{row['seconds']:.1f}",
        )
        for row in rows
    ]
    widths = [max(len(line[column]) for line in cells) for column in range(len(_COLUMNS))]
    lines = []
    for line in cells:
        left = line[0].ljust(widths[0])
        lines.append(
            "  ".join([left, *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))])
        )
    return "\n".join(lines)
