"""curves.png: training loss against steps and against forward passes."""

from __future__ import annotations

import io
from collections import defaultdict
from collections.abc import Iterable
from typing import Any

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
WINDOWS = 60


def _smooth(values: list[float], window: int) -> list[float]:
    """Means over consecutive windows; a remainder joins none."""
    return [
        sum(values[at : at + window]) / window for at in range(0, len(values) - window + 1, window)
    ]


def curves(metrics: Iterable[dict[str, Any]]) -> dict[str, dict[str, list[float]]]:
    """Smoothed curves per estimator from metrics.jsonl's rows.

    Args:
        metrics: rows with estimator, seed, step, train_loss and forwards (cumulative).

    Returns:
        By estimator: steps and forwards at the end of each window of about 1/60 of the run, and
        mean, low and high over seeds of the windows' mean loss. A step whose loss was not finite
        counts as the run's last finite one.
    """
    losses: dict[str, dict[int, list[float]]] = defaultdict(lambda: defaultdict(list))
    forwards: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row in metrics:
        series = losses[row["estimator"]][row["seed"]]
        loss = row["train_loss"]
        if loss is None:
            loss = series[-1] if series else float("nan")
        series.append(loss)
        forwards[row["estimator"]][row["seed"]].append(row["forwards"])
    result = {}
    for name, by_seed in losses.items():
        steps = min(len(series) for series in by_seed.values())
        window = max(1, steps // WINDOWS)
        ends = range(window, steps + 1, window)
        count = next(iter(forwards[name].values()))
        smooth = [_smooth(series[:steps], window) for series in by_seed.values()]
        result[name] = {
            "steps": [float(end) for end in ends],
            "forwards": [float(count[end - 1]) for end in ends],
            "mean": [sum(at) / len(at) for at in zip(*smooth, strict=True)],
            "low": [min(at) for at in zip(*smooth, strict=True)],
            "high": [max(at) for at in zip(*smooth, strict=True)],
        }
    return result


def draw(metrics: Iterable[dict[str, Any]], title: str) -> bytes:
    """Draw training loss against steps and against forward passes, with the range over seeds.

    Args:
        metrics: rows of metrics.jsonl.
        title: of the picture.

    Returns:
        The PNG file's bytes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(10, 4), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    left, right = figure.subplots(1, 2, sharey=True)
    for position, (name, curve) in enumerate(curves(metrics).items()):
        colour = COLOURS[position % len(COLOURS)]
        for axes, along in ((left, "steps"), (right, "forwards")):
            axes.plot(curve[along], curve["mean"], color=colour, label=name)
            axes.fill_between(
                curve[along], curve["low"], curve["high"], color=colour, alpha=0.2, linewidth=0
            )
    left.set_ylabel("training loss (batch)")
    left.set_xlabel("steps")
    right.set_xlabel("forward passes (a backward counts as 2)")
    left.legend()
    for axes in (left, right):
        axes.set_xlim(left=0)
        axes.grid(alpha=0.3)
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()
