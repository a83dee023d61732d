"""What the command line asks of a bench, and a user's own peers."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import fogzo_kernels as fk

from . import _device

Call = Callable[..., Any]
BACKENDS = ("cpu", "reference", "triton", "cuda")
DTYPES = ("int8", "float32", "bfloat16", "float8_e4m3fn")


BITS = "1 (sign), 1.58 (ternary), 2..8"


class BenchError(Exception):
    """A line for the user and the exit code: 1 a failure, 2 a wrong use."""

    def __init__(self, text: str, code: int = 1) -> None:
        super().__init__(text)
        self.code = code


@dataclass(frozen=True)
class Options:
    """One run's options; None is the bench's own choice.

    threads, repeat: CPU threads, samples of each variant. compiled: measure torch.compile too.
    shape: as a bench's TAKES says. peer: the user's functions by bench, see docs/benchmarking.md.
    """

    threads: int = 1
    repeat: int = 60
    compiled: bool = True
    shape: tuple[int, ...] | None = None
    bits: float | None = None
    probes: int | None = None
    dtype: str | None = None
    backend: str | None = None
    model: str | None = None
    peer_name: str = ""
    peer: dict[str, Call] = field(default_factory=dict)

    def backends(self, op: str, default: tuple[str, ...] = ("cpu",)) -> tuple[str, ...]:
        """The backends to measure; a named one that is not usable is an error with its reason."""
        if self.backend is None:
            return (_device.BACKEND["cuda"],) if _device.on_gpu() else default
        reason = fk.capabilities()[op][self.backend]
        if reason is not None:
            raise BenchError(f"{op}: --backend {self.backend} is not used: {reason}")
        return (self.backend,)

    def users(self, op: str, **inputs: Any) -> dict[str, Call]:
        """The user's call for this op, by the name of the file; none where it has no function."""
        if op not in self.peer:
            return {}
        try:
            call = self.peer[op](**inputs)
        except Exception as error:
            raise BenchError(f"{self.peer_name}: {op} raised {said(error)}") from error
        if not callable(call):
            raise BenchError(
                f"{self.peer_name}: {op} returned {type(call).__name__}, expected a call to time"
            )
        return {self.peer_name: call}


def grid_of(bits: float, kind: str = "mid-rise") -> fk.Grid:
    """The grid of a width: 1 is sign, 1.58 ternary, 2..8 of the given kind."""
    narrow = {1: "sign", 1.58: "ternary"}.get(bits)
    return fk.Grid(kind, int(bits)) if narrow is None else fk.Grid(narrow)


def grid_name(grid: fk.Grid) -> str:
    """As rows say it: "mid-rise 2", "sign"."""
    return grid.kind if grid.bits is None else f"{grid.kind} {grid.bits}"


def parse_shape(text: str) -> tuple[int, ...]:
    """Sizes out of MxNxK or NxK.

    Raises:
        ValueError: another form, or a size below 1.

    Example:
        >>> parse_shape("512x768x768")
        (512, 768, 768)
    """
    parts = text.lower().split("x")
    if len(parts) not in (2, 3) or not all(part.isdecimal() and int(part) for part in parts):
        raise ValueError(f"got {text!r}, expected MxNxK or NxK with sizes of at least 1")
    return tuple(int(part) for part in parts)


def sizes(op: str, shape: tuple[int, ...] | None, default: tuple[int, ...]) -> tuple[int, ...]:
    """A shape as long as the default, whose leading size may be left out.

    Raises:
        BenchError: another number of sizes.
    """
    if shape is None:
        return default
    if len(shape) == len(default) - 1 and op != "probe_matmul":
        return default[:1] + shape
    if len(shape) != len(default):
        raise BenchError(
            f"{op}: --shape has {len(shape)} sizes, expected {len(default)} as in "
            + "x".join(map(str, default)),
            2,
        )
    return shape


def said(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"


def load_peer(path: Path, benches: tuple[str, ...]) -> dict[str, Call]:
    """The functions in a Python file that are named like a bench.

    Raises:
        BenchError: a file that cannot be read or run, or has no such function.
    """
    spec = importlib.util.spec_from_file_location(f"fogzo_bench_peer_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise BenchError(f"--peer has {path}, expected a Python file", 2)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:  # a user's code: anything
        raise BenchError(f"--peer {path} cannot be loaded ({said(error)})") from error
    found = {name: getattr(module, name) for name in benches if callable(vars(module).get(name))}
    if not found:
        raise BenchError(
            f"--peer {path} has no function named like a bench, expected one of "
            + ", ".join(benches)
        )
    return found


def require_close(
    op: str, name: str, got: Any, expected: Any, most: float, ties: float = 0.0
) -> None:
    """A peer's tensors must equal ours to `most` times our largest value (0: bit for bit).

    ties: the share of elements that may lie further off, where another order of operations or a
    fused multiply-add may turn an x next to a rounding tie.

    Raises:
        BenchError: tensors of another shape, or further off.
    """
    import torch

    theirs, ours = _tensors(got), _tensors(expected)
    if [t.shape for t in theirs] != [t.shape for t in ours]:
        raise BenchError(
            f"{op}: {name} has shapes {[tuple(t.shape) for t in theirs]}, expected "
            f"{[tuple(t.shape) for t in ours]}"
        )
    for their, our in zip(theirs, ours, strict=True):
        if torch.equal(their, our):
            continue
        errors = (their.double() - our.double()).abs()
        error = errors.max().item()
        far = (errors > most * our.double().abs().max()).double().mean().item()
        if not math.isfinite(error) or far > ties:
            raise BenchError(f"{op}: {name} is off by {error:.3g}, so it is not timed")


def _tensors(value: Any) -> list[Any]:
    return list(value) if isinstance(value, (list, tuple)) else [value]
