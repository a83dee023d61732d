"""One operation against its peers, without a bar: check, time, report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from ._backends import backend_calls
from ._measure import measure
from ._options import Options, require_close
from ._report import Result, copy_yardstick


def run_plain(
    op: str,
    options: Options,
    ours: Callable[[], Any],
    theirs: Mapping[str, Callable[[], Any]],
    *,
    shape: dict[str, Any],
    moved: int,
    most: float = 0.0,
    ties: float = 0.0,
    own_order: float = 0.0,
) -> Result:
    """Measure an operation that has no bar.

    Args:
        op: its name in fk.capabilities().
        options: backend and how to measure.
        ours: the operation through the backend in force; gives a tensor or several.
        theirs: peers; each must give ours to `most` times the largest value (0: bit for bit).
        shape: what the row says.
        moved: bytes that one call has to read and write.
        most: see theirs.
        ties: the share of elements that may be further off, next to rounding ties.
        own_order: how far a backend's own order of a sum may be from the reference's: a number of
            the largest value below 1e-6, else the share of codes.
    """
    for name, call in theirs.items():
        require_close(op, name, call(), ours(), most, ties)
    near = {"most": own_order} if own_order <= 1e-6 else {"ties": own_order}
    variants = backend_calls(op, ours, options.backends(op), **near)
    yardstick, copied = copy_yardstick(max(moved // 8, 1))
    times = measure(
        {**variants, **theirs, "copy": yardstick}, threads=options.threads, rounds=options.repeat
    )
    return Result(
        op=op,
        shape=shape,
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(times, moved),
    )
