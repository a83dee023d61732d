"""A log of training: one JSON object a step, and TensorBoard."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fogzo_kernels import _check

from .._rows import encoded, replace
from ..estimators import Last
from ..estimators._base import Estimator
from .oscillation import Oscillation

LABELS = {"STE": "ste", "NSPSA": "n-spsa", "FOGZO": "fogzo"}  # as the command line has them
PER_PROBE = ("difference", "predicted", "ratio", "resolution")
NEED = "tensorboard needs the package tensorboard ({}): pip install 'fogzo-kernels[tensorboard]'"


class Logger:
    """Writes what ``est.last`` holds, a JSON object a step, and to TensorBoard.

    The rows have the fields of the command line's metrics.jsonl (estimator, seed, step, train_loss,
    gamma, forwards [since the run began], difference, predicted, flips) and ratio, resolution,
    norm, fallbacks and oscillation ({name: rate}; see Oscillation). What is not finite, or not
    there in a plain step, is null. ``fogzo plot FILE`` draws them.

    Nothing waits for a device until rows are written: their figures stay there as one tensor a
    step. Rows not yet written are lost where the process is killed. Save ``state_dict()`` beside
    the estimator's, and a resumed run's rows are those of one that never stopped.

    Args:
        est: the estimator that trains.
        path: the .jsonl file, or None; folders above it are made.
        every: a row of every so many calls of ``log``, from the first on.
        oscillation: track oscillation rates, at every call, also of those that make no row.
        momentum: m of the oscillation rates, in (0, 1].
        tensorboard: a folder for torch.utils.tensorboard, or an object with
            ``add_scalar(tag, value, step)``, or None.
        buffer: rows that wait before they are written together.
        resume: add to an existing file. The first row that is written takes the place of those
            of its own and later steps: load the states of ``est`` and of this before.

    Raises:
        ValueError, TypeError: an argument outside its range, or neither path nor tensorboard.
        FileExistsError: there are rows in the file and ``resume`` is False.
        ImportError: TensorBoard is not installed.

    Example:
        >>> with fogzo.Logger(est, "runs/log.jsonl") as logger:
        ...     for batch in data:
        ...         est.backward(closure, batch); logger.log(); opt.step(); opt.zero_grad()
    """

    def __init__(
        self,
        est: Estimator,
        path: str | Path | None = None,
        every: int = 1,
        *,
        oscillation: bool = True,
        momentum: float = 0.01,
        tensorboard: Any = None,
        buffer: int = 100,
        resume: bool = False,
    ) -> None:
        if not isinstance(est, Estimator):
            got = f"is a {type(est).__name__}"
            _check.fail("Logger", "est", got, "fogzo.STE, NSPSA or FOGZO", TypeError)
        for name, value in (("every", every), ("buffer", buffer)):
            if not _check.is_int(value) or value < 1:
                _check.fail("Logger", name, f"is {value!r}", "an int >= 1")
        if path is None and tensorboard is None:
            _check.fail("Logger", "path", "is None", "a file, or tensorboard=")
        if path is not None and not isinstance(path, (str, os.PathLike)):
            _check.fail("Logger", "path", f"is {path!r}", "a str or a pathlib.Path", TypeError)
        self._est, self._every, self._buffer = est, every, buffer
        self._oscillation = Oscillation(est, momentum) if oscillation else None
        self._calls = 0
        self._waiting: list[_Figures] = []
        self._own_writer = isinstance(tensorboard, (str, Path))
        self._writer = _writer(tensorboard) if self._own_writer else tensorboard
        self._file: Any = None if path is None else _opened(Path(path), resume)
        self._to_cut = None if path is None or not resume else Path(path)

    def log(self, last: Last | None = None) -> None:
        """Note the figures of the call of ``backward`` just made, before or after the step.

        Args:
            last: ``est.last``, which None stands for.

        Raises:
            RuntimeError: there was no call yet.
        """
        last = self._est.last if last is None else last
        if last is None:
            expected = "a call of backward() before it"
            _check.fail("Logger.log", "last", "is None", expected, RuntimeError)
        rates = {} if self._oscillation is None else self._oscillation.see()
        self._calls += 1
        if (self._calls - 1) % self._every:
            return
        self._waiting.append(_Figures(self._est, last, rates))
        if len(self._waiting) >= self._buffer:
            self.flush()

    def flush(self) -> None:
        """Write the rows that wait; waits for the device."""
        if not self._waiting:
            return
        if self._to_cut is not None:
            self._cut(self._to_cut, self._waiting[0].step)
        waiting, self._waiting = self._waiting, []
        numbers = torch.cat([figures.values for figures in waiting]).tolist()
        if self._est.last is not None:
            self._est.last.was_read()
        for figures in waiting:
            row = figures.row(numbers[: len(figures.values)])
            del numbers[: len(figures.values)]
            if self._file is not None:
                self._file.write(encoded(row))
            if self._writer is not None:
                for tag, value in _scalars(row).items():
                    self._writer.add_scalar(tag, value, row["step"])
        if self._file is not None:
            self._file.flush()

    def _cut(self, path: Path, step: int) -> None:
        """Take from a resumed file the rows of ``step`` and later ones, which come again."""
        lines = path.read_bytes().splitlines(True)
        kept = [line for line in lines if _step(line) < step]
        if kept != lines:
            self._file.close()
            try:
                replace(path, b"".join(kept))
            finally:
                self._file = path.open("ab")
        self._to_cut = None

    def state_dict(self) -> dict[str, Any]:
        """Calls so far and the memory of the oscillation rates; writes the rows that wait."""
        self.flush()
        rates = None if self._oscillation is None else self._oscillation.state_dict()
        return {"calls": self._calls, "oscillation": rates}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where ``state`` was taken, with ``resume=True`` for the file.

        Raises:
            TypeError, ValueError: none that state_dict() makes, or one of a logger with other
                rates; nothing has been changed then.
        """
        op = "Logger.load_state_dict"
        if not isinstance(state, dict) or state.keys() != {"calls", "oscillation"}:
            got = f"is a {type(state).__name__}"
            _check.fail(op, "state", got, "what state_dict() returned", TypeError)
        if not _check.is_int(state["calls"]) or state["calls"] < 0:
            _check.fail(op, "calls", f"is {state['calls']!r}", "an int >= 0")
        rates = state["oscillation"]
        if (rates is None) != (self._oscillation is None):
            got = "is None" if rates is None else "has rates"
            expected = f"oscillation={rates is not None} as when it was saved"
            _check.fail(op, "oscillation", got, expected)
        if self._oscillation is not None:
            self._oscillation.load_state_dict(rates)
        self._calls = state["calls"]

    def close(self) -> None:
        """Write what waits and close the file."""
        try:
            self.flush()
        finally:
            if self._file is not None:
                self._file.close()
            if self._own_writer:
                self._writer.close()

    def __enter__(self) -> Logger:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Figures:
    """One step's figures as float64 [k] on the loss's device, and how to read them.

    They are copies: a captured step writes its tensors anew at every replay.
    """

    def __init__(self, est: Estimator, last: Last, rates: dict[str, Tensor]) -> None:
        seed = getattr(est, "seed", None)
        label = LABELS.get(type(est).__name__, type(est).__name__)
        self._head = {"estimator": label, "seed": seed}
        self._probes, self._rates = len(last.losses), list(rates)
        counts = last.flip_counts()
        self._flips = [name for names, _ in counts for name in names]
        # what the host knows already
        self._known: dict[str, Any] = {"gamma": last.gamma, "norm": last.norm}
        self._known |= {"fallbacks": last.fallbacks}
        self._known |= {"step": est.calls - 1, "forwards": est.forwards}
        self._scalars = [key for key, value in self._known.items() if isinstance(value, Tensor)]
        parts = [last.loss, *(self._known[key] for key in self._scalars)]
        if self._probes:
            parts += [getattr(last, name) for name in PER_PROBE]
        parts += [n for _, n in counts] + [rates[name] for name in self._rates]
        device = last.loss.device
        with torch.no_grad():
            flat = [part.detach().to(device).double().reshape(-1) for part in parts]
            self.values = torch.cat(flat)

    @property
    def step(self) -> int:
        return int(self._known["step"])

    def row(self, numbers: list[float]) -> dict[str, Any]:
        """The row of ``values``, read."""
        at = iter(numbers)
        loss = next(at)
        known = self._known | {key: next(at) for key in self._scalars}
        probes = {name: [next(at) for _ in range(self._probes)] for name in PER_PROBE}
        flips = {name: int(next(at)) for name in self._flips}
        rates = {name: next(at) for name in self._rates}
        return {
            **self._head,
            "step": int(known["step"]),
            "train_loss": loss,
            "gamma": known["gamma"] if self._probes else None,
            "forwards": int(known["forwards"]),
            "difference": probes["difference"],
            "predicted": probes["predicted"],
            "flips": flips,
            "ratio": probes["ratio"],
            "resolution": probes["resolution"],
            "norm": known["norm"],
            "fallbacks": int(known["fallbacks"]),
            "oscillation": rates,
        }


def _opened(path: Path, resume: bool) -> Any:
    if path.is_dir():
        _check.fail("Logger", "path", f"is the folder {path}", "a file in it")
    path.parent.mkdir(parents=True, exist_ok=True)
    if not resume and path.exists() and path.stat().st_size:
        raise FileExistsError(
            f"Logger: path {path} has {path.stat().st_size} bytes, expected a new file "
            "(resume=True continues it)"
        )
    return path.open("ab")


def _step(line: bytes) -> float:
    """The step of a row; infinite of one that was not written to its end."""
    try:
        return float(json.loads(line)["step"]) if line.endswith(b"\n") else math.inf
    except (ValueError, KeyError, TypeError):
        return math.inf


def _writer(folder: str | Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise ImportError(f"Logger: {NEED.format(error)}", name="tensorboard") from error
    return SummaryWriter(str(folder))


def _scalars(row: dict[str, Any]) -> dict[str, float]:
    """TensorBoard's tags; slopes are means over the probes of their absolute values."""
    tags = {"loss": row["train_loss"], "gamma": row["gamma"], "norm": row["norm"]}
    pairs = list(zip(row["difference"], row["predicted"], strict=True))
    if pairs:
        tags["slope/measured"] = sum(abs(d) for d, _ in pairs) / len(pairs)
        tags["slope/predicted"] = sum(abs(p) for _, p in pairs) / len(pairs)
        square = sum(p * p for _, p in pairs)
        # the slope of a line through all probes: D / P where there is one
        tags["ratio"] = sum(d * p for d, p in pairs) / square if square else math.nan
        tags["fallbacks"] = row["fallbacks"]
    tags |= {f"flips/{name}": n for name, n in row["flips"].items()}
    tags |= {f"oscillation/{name}": rate for name, rate in row["oscillation"].items()}
    return {tag: float(v) for tag, v in tags.items() if v is not None and math.isfinite(v)}
