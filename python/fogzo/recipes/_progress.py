"""What a waiting user sees: a bar with the live loss, on a terminal's stderr only."""

from __future__ import annotations

import sys
import time
from typing import Any

try:
    from tqdm import tqdm
except ImportError:
    tqdm = None

_SMOOTHING = 0.05
_REFRESH_SECONDS = 0.2


class Progress:
    """Progress over all runs: `fogzo seed 0:  41%|####   | 7380/18000 [loss 0.71]`.

    total: steps of all runs together; done: of these, done before this process began;
    quiet: show nothing. Without tqdm the same figures stand in one plain line; when stderr is no
    terminal there is no bar, only a line for each finished run.
    """

    def __init__(self, total: int, done: int = 0, quiet: bool = False) -> None:
        self._quiet = quiet
        self._live = not quiet and sys.stderr.isatty()
        self._total, self._done = total, done
        self._loss: float | None = None
        self._last = 0.0
        self._name = ""
        self._bar: Any = None
        if self._live and tqdm is not None:
            self._bar = tqdm(total=total, initial=done, unit="step", dynamic_ncols=True)

    def start(self, name: str) -> None:
        """A new run begins; name is what the bar shows in front."""
        self._name, self._loss = name, None
        if self._bar is not None:
            self._bar.set_description_str(name)

    def step(self, loss: float) -> None:
        """One step is done; loss is that step's training loss."""
        old = loss if self._loss is None else self._loss
        self._loss = old + _SMOOTHING * (loss - old)
        self._done += 1
        if not self._live:
            return
        if self._bar is not None:
            self._bar.update()
        now = time.monotonic()
        if now - self._last < _REFRESH_SECONDS:
            return
        self._last = now
        if self._bar is not None:
            self._bar.set_postfix_str(f"loss {self._loss:.4f}", refresh=False)
        else:
            text = f"{self._name}: step {self._done} of {self._total}, loss {self._loss:.4f}"
            print(f"\r{text}\x1b[K", end="", file=sys.stderr, flush=True)

    def say(self, text: str) -> None:
        """A line that stays, above the bar; nothing when quiet."""
        if self._quiet:
            return
        if self._bar is not None:
            self._bar.write(text, file=sys.stderr)
        else:
            lead = "\r\x1b[K" if self._live else ""
            print(lead + text, file=sys.stderr, flush=True)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *exception: object) -> None:
        if self._bar is not None:
            self._bar.close()
        elif self._live:
            print("\r\x1b[K", end="", file=sys.stderr, flush=True)
