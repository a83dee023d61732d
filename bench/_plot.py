"""`fogzo bench --plot`: a picture of measured rows."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

from ._options import BenchError
from ._report import YARDSTICKS, ours_among


def require(path: Path) -> None:
    """Refuse before anything is measured where no picture can be drawn.

    Raises:
        BenchError: matplotlib is missing, or the file's ending is not .png.
    """
    if path.suffix != ".png":
        raise BenchError(f"--plot has {path}, expected a name that ends in .png", 2)
    if importlib.util.find_spec("matplotlib") is None:
        raise BenchError("--plot needs matplotlib: pip install matplotlib")


def draw(rows: list[dict[str, Any]], path: Path) -> None:
    """One panel a row: medians as bars, 10 to 90 % as whiskers, ours and yardsticks coloured.

    Raises:
        BenchError: the file cannot be written.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    heights = [0.8 + 0.3 * len(row["times"]) for row in rows]
    figure = Figure(figsize=(9, sum(heights)), layout="constrained")
    FigureCanvasAgg(figure)
    panels = figure.subplots(len(rows), 1, squeeze=False, height_ratios=heights)[:, 0]
    for panel, row in zip(panels, rows, strict=True):
        names = list(row["times"])
        ours = ours_among(names)
        times = [row["times"][name] for name in names]
        middle = [1e6 * one["median"] for one in times]
        ends = [
            [1e6 * (one["median"] - one["low"]) for one in times],
            [1e6 * (one["high"] - one["median"]) for one in times],
        ]
        colours = [
            "tab:blue" if name in ours else "lightgrey" if name in YARDSTICKS else "tab:orange"
            for name in names
        ]
        panel.barh(names, middle, xerr=ends, color=colours)
        panel.invert_yaxis()
        panel.set_xlabel("microseconds")
        shape = ", ".join(f"{name} {value}" for name, value in row["shape"].items())
        panel.set_title(f"{row['op']}: {shape}", fontsize=9)
    try:
        figure.savefig(path, dpi=120)
    except OSError as error:
        raise BenchError(f"{path} cannot be written ({error.strerror})") from error
