"""The same call once per backend that takes it on this machine."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fogzo_kernels as fk

from ._options import BenchError, Options, require_close


def backend_calls(
    op: str,
    call: Callable[[], Any],
    timed: tuple[str, ...] = ("cpu",),
    most: float = 0.0,
    ties: float = 0.0,
) -> dict[str, Callable[[], Any]]:
    """A call per usable backend, by name, each checked equal to the reference's result.

    Args:
        op: name in fk.capabilities().
        call: runs the op through the backend in force; gives a tensor or several.
        timed: the backends wanted.
        most, ties: as in ``require_close``: 0 for bit for bit, else what another order of a
            float64 sum may change.

    Raises:
        BenchError: a backend's result differs from the reference's.
    """

    def on(name: str) -> Callable[[], Any]:
        def forced() -> Any:
            with fk.use_backend(name):
                return call()

        return forced

    usable = fk.capabilities()[op]
    wanted = [name for name in timed if usable[name] is None]
    expected = [tensor.clone() for tensor in _tensors(on("reference")())] if wanted else []
    calls = {}
    for name in wanted:
        got = _tensors(on(name)())
        if most or ties:
            require_close(op, name, got, expected, most, ties)
        elif not all(torch.equal(*pair) for pair in zip(got, expected, strict=True)):
            raise BenchError(f"{op}: {name} differs from the reference")
        calls[name] = on(name)
    return calls


def calls(op: str, call: Callable[[], Any], options: Options) -> dict[str, Callable[[], Any]]:
    """By the backend it runs on; the one that is chosen by itself is not forced, which costs."""
    if options.backend is None and fk.capabilities()[op]["cpu"] is None:
        return {"cpu": call}

    def on(name: str) -> Callable[[], Any]:
        def forced() -> Any:
            with fk.use_backend(name):
                return call()

        return forced

    return {name: on(name) for name in options.backends(op, ("reference",))}


def _tensors(value: Any) -> list[torch.Tensor]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
