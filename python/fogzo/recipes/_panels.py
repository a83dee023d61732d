"""`fogzo plot`: what a run's rows say of loss, ratio, flips, gamma and oscillation."""

from __future__ import annotations

import argparse
import io
import json
import math
from collections import defaultdict
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from .._rows import replace
from ._files import METRICS, RunFolderError
from ._plot import COLOURS, WINDOWS
from ._spec import UsageError

PICTURE = "panels.png"
MOST = 8  # curves in a panel of one estimator's weights: those with the largest values
Series = dict[str, list[tuple[float, float]]]  # by label: (step, value)
ABOUT = {
    "loss": "training loss (batch)",
    "ratio": "measured / predicted slope",
    "flips": "codes flipped by the probes",
    "gamma": "gamma",
    "oscillation": "oscillation rate",
}


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a run folder's metrics.jsonl, or of a logger's file.

    A last line without an end, of a process that was killed, is left out.

    Raises:
        RunFolderError: no such file, no rows in it, or a line that is not one.
    """
    file = path / METRICS if path.is_dir() else path
    try:
        data = file.read_bytes()
    except FileNotFoundError:
        raise RunFolderError(
            f"plot: {file} is not there, expected a folder that `fogzo train` wrote, or the file "
            "of a fogzo.Logger"
        ) from None
    rows = []
    for number, line in enumerate(data.splitlines(keepends=True), 1):
        if not line.endswith(b"\n"):
            break
        try:
            row = json.loads(line)
            rows.append({**row, "step": int(row["step"])})
            row["estimator"], row["train_loss"]
        except (ValueError, KeyError, TypeError):
            raise RunFolderError(
                f"plot: {file} line {number} is no row, expected an object with estimator, step "
                "and train_loss"
            ) from None
    if not rows:
        raise RunFolderError(f"plot: {file} has no rows, expected one a step")
    return rows


def panels(rows: Iterable[dict[str, Any]]) -> dict[str, Series]:
    """Curves by panel and label, each a mean over windows of about 1/60 of the run.

    loss: mean train_loss. ratio: sum D P / sum P^2 over a window's probes, the slope of a line
    through them. flips and oscillation: of each weight (the MOST largest) where the rows are of
    one estimator, else the sum and the mean over all weights. gamma: mean. What no row has makes
    no curve, and a panel without curves is left out. Rows of one estimator and step, of several
    seeds, are taken together.
    """
    rows = list(rows)
    names = list(dict.fromkeys(row["estimator"] for row in rows))
    found: dict[str, Series] = {panel: {} for panel in ABOUT}
    for name in names:
        own = [row for row in rows if row["estimator"] == name]
        last = max(row["step"] for row in own)
        window = max(1, (last + 1) // WINDOWS)
        parts: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for row in own:
            parts[row["step"] // window].append(row)
        ends = [((at + 1) * window, parts[at]) for at in sorted(parts)]
        curves: dict[str, Series] = {
            "loss": {name: [(end, _mean(r["train_loss"] for r in part)) for end, part in ends]},
            "gamma": {name: [(end, _mean(r.get("gamma") for r in part)) for end, part in ends]},
            "ratio": {name: [(end, _ratio(part)) for end, part in ends]},
        }
        for key, together in (("flips", sum), ("oscillation", _mean)):
            curves[key] = _of_weights(key, ends, None if len(names) == 1 else (name, together))
        for panel, series in curves.items():
            for label, points in series.items():
                if kept := [(x, y) for x, y in points if math.isfinite(y)]:
                    found[panel][label] = kept
    return {panel: series for panel, series in found.items() if series}


def _mean(values: Iterable[Any]) -> float:
    kept = [value for value in values if value is not None]
    return sum(kept) / len(kept) if kept else math.nan


def _ratio(rows: list[dict[str, Any]]) -> float:
    pairs = list(_pairs(rows))
    square = sum(p * p for _, p in pairs)
    return sum(d * p for d, p in pairs) / square if square else math.nan


def _pairs(rows: list[dict[str, Any]]) -> Iterator[tuple[float, float]]:
    for row in rows:
        for d, p in zip(row.get("difference", ()), row.get("predicted", ()), strict=False):
            if d is not None and p is not None:
                yield d, p


def _of_weights(key: str, ends: list[tuple[int, list[dict[str, Any]]]], joined: Any) -> Series:
    series: Series = defaultdict(list)
    for end, part in ends:
        dicts = [row[key] for row in part if row.get(key)]
        if joined is not None:
            name, together = joined
            series[name].append((end, _mean(together(d.values()) for d in dicts)))
            continue
        for weight in dict.fromkeys(name for d in dicts for name in d):
            series[weight].append((end, _mean(d.get(weight) for d in dicts)))
    by_size = sorted(series, key=lambda label: -max(y for _, y in series[label]))
    return {label: points for label, points in series.items() if label in by_size[:MOST]}


def draw(found: dict[str, Series], title: str) -> bytes:
    """The panels below one another, as a PNG file's bytes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 1 + 2.2 * len(found)), layout="constrained")
    canvas = FigureCanvasAgg(figure)
    figure.suptitle(title)
    all_axes = figure.subplots(len(found), 1, sharex=True, squeeze=False)[:, 0]
    labels = list(dict.fromkeys(label for series in found.values() for label in series))
    for axes, (panel, series) in zip(all_axes, found.items(), strict=True):
        for label, points in series.items():
            x, y = zip(*points, strict=True)
            axes.plot(x, y, color=COLOURS[labels.index(label) % len(COLOURS)], label=label)
        values = [y for points in series.values() for _, y in points]
        if panel in ("flips", "gamma") and max(values) > 100 * min(values) > 0:
            axes.set_yscale("log")
        axes.set_ylabel(ABOUT[panel], fontsize="small")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
        if panel == "ratio":
            axes.axhline(1.0, color="black", linewidth=0.8, linestyle=":")
    all_axes[-1].set_xlabel("steps")
    png = io.BytesIO()
    canvas.print_png(png)
    return png.getvalue()


def plot(args: argparse.Namespace) -> int:
    """Draw the rows of a run folder or of a logger's file.

    Args:
        args: rows, a folder or file; out, the picture, or None: panels.png in the folder, beside a
            file its name with .png.

    Returns:
        Exit code 0.

    Raises:
        RunFolderError: nothing to draw, nothing to draw with, or nowhere to write to.
    """
    run: Path = args.rows
    out = args.out or (run / PICTURE if run.is_dir() else run.with_suffix(".png"))
    if out.resolve() == run.resolve():
        raise UsageError(f"plot: --out has {out}, expected another file than the rows")
    found = panels(read(run))
    try:
        png = draw(found, str(run))
    except ImportError as error:
        raise RunFolderError(
            f"plot: {out} is not drawn ({error}): pip install 'fogzo-kernels[train]'"
        ) from None
    out.parent.mkdir(parents=True, exist_ok=True)
    replace(out, png)
    print(f"picture: {out} ({', '.join(found)})")
    return 0
