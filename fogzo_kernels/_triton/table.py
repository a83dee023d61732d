"""The host's side of ``tiles``: the table of tensors, and scalars on their way to a kernel."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections import OrderedDict
from collections.abc import Iterator
from typing import Any

from .. import _surrogate, _tables
from .._check import Draw, View
from .tiles import COLUMNS

TILE = 1024
_MOST = 128
_ARENA_WORDS = 2**19
_kept: OrderedDict[Any, Any] = OrderedDict()
_captured: list[Any] = []
_arena_used = [0]


def segments(view: View, draw: Draw) -> tuple[int, int, int]:
    """Number of segments, elements of one, element numbers between their starts."""
    if draw.row_pitch == view.cols or view.rows <= 1:
        return 1, view.rows * view.cols, 0
    return view.rows, view.cols, draw.row_pitch


def programs_of(view: View, draw: Draw, tiles: int) -> int:
    """Programs of a segment: of the one that touches the most runs of so many tiles."""
    count, length, pitch = segments(view, draw)
    run = TILE * tiles
    before = draw.offset % run
    if count > 1 and pitch % run:
        before = run - 1
    return (before + length - 1) // run + 1


def group_of(view: View) -> int:
    """Elements that share a scale, at least 1."""
    return max(1, view.rows * view.cols // max(1, view.scale_rows * view.scale_cols))


def row(view: View, draw: Draw, tiles: int, **arrays: Any) -> dict[str, int]:
    """One tensor's row of the table, for programs of so many tiles."""
    count, length, pitch = segments(view, draw)
    return {
        "programs": programs_of(view, draw, tiles),
        "segments": count,
        "segment": length,
        "pitch": pitch,
        "offset": draw.offset,
        "numel": view.rows * view.cols,
        "group": group_of(view),
        "tensor": draw.tensor,
        **{name: 0 if array is None else array.data_ptr() for name, array in arrays.items()},
    }


def aligned(rows: list[dict[str, int]]) -> bool:
    """Whether every address is a multiple of 16 bytes and every size one of 16 elements."""
    sizes = ("segment", "pitch", "offset", "numel", "w", "grad", "out", "base")
    return all(r.get(name, 0) % 16 == 0 for r in rows for name in sizes)


def run_of(rows: list[dict[str, int]]) -> int:
    """Neighbouring lanes that surely share a scale: 128, 4 or 1; 0: all elements of a tensor do."""
    if all(_whole(r) for r in rows):
        return 0
    return next(n for n in (128, 4, 1) if all(_fits(r, n) for r in rows))


def _whole(row: dict[str, int]) -> bool:
    """Whether one scale serves the tensor."""
    return row["group"] >= row["numel"]


def _fits(row: dict[str, int], run: int) -> bool:
    names = ("offset", "pitch") if _whole(row) else ("offset", "pitch", "group")
    return all(row[name] % run == 0 for name in names)


def launches(
    tensors: list[tuple[dict[str, int], dict[str, Any]]],
) -> Iterator[tuple[list[dict[str, int]], dict[str, Any]]]:
    """Tensors, each its row and the constexprs it needs, as few launches: rows and constexprs."""
    found: dict[tuple[Any, ...], tuple[list[dict[str, int]], dict[str, Any]]] = {}
    for entry, needs in tensors:
        run = 128 if _fits(entry, 128) else run_of([entry])
        key = (run, aligned([entry]), *(v for name, v in needs.items() if name != "atanh"))
        found.setdefault(key, ([], needs))[0].append(entry)
    for rows, needs in found.values():
        yield rows, {**needs, "RUN": run_of(rows), "ALIGNED": aligned(rows)}


def linear_row(view: View, elements: int, radius: float, **arrays: Any) -> dict[str, int]:
    """The row of a tensor whose element numbers do not matter, for programs of so many elements."""
    numel = view.rows * view.cols
    (bits,) = struct.unpack("i", struct.pack("f", radius))
    return {
        "programs": -(-numel // elements),
        "segments": 1,
        "segment": numel,
        "pitch": 0,
        "offset": 0,
        "numel": numel,
        "group": group_of(view),
        "radius": bits,
        **{name: array.data_ptr() for name, array in arrays.items()},
    }


def device_table(rows: list[dict[str, int]], device: Any) -> tuple[Any, int, int]:
    """The table on the device, without waiting for it; the steps of ``tiles.find_row``; programs.

    Rows of one table have at least one element each.
    """
    flat: list[int] = []
    programs = 0
    for entry in rows:
        entry = {**entry, "start": programs}
        flat += (entry.get(name, 0) for name in COLUMNS)
        programs += entry["programs"] * entry["segments"]
    steps = (len(rows) - 1).bit_length()
    return _on_device(tuple(flat), steps, device), steps, programs


def _on_device(flat: tuple[int, ...], steps: int, device: Any) -> Any:
    """Tables are kept by their contents: equal calls copy nothing."""
    import torch

    padding = ((2**62,) + (0,) * (len(COLUMNS) - 1)) * (2**steps - len(flat) // len(COLUMNS))
    if device.type == "cpu":
        return torch.tensor(flat + padding, dtype=torch.int64)
    if torch.cuda.is_current_stream_capturing():
        return _captured_table(flat, flat + padding, device)
    stream = torch.cuda.current_stream(device).cuda_stream
    key = (flat, device, stream)
    if key not in _kept:
        _arena()  # a capture, in which nothing can be pinned, may come later
        host = torch.tensor(flat + padding, dtype=torch.int64).pin_memory()
        _kept[key] = host.to(device, non_blocking=True)
        while len(_kept) > _MOST:
            _kept.popitem(last=False)
    _kept.move_to_end(key)
    return _kept[key]


def _captured_table(flat: tuple[int, ...], values: tuple[int, ...], device: Any) -> Any:
    """For a CUDA graph: a table that was complete before the capture began, or a copy within it.

    Either lives as long as the process: the graph does not say when it is done.
    """
    import torch

    for key, table in _kept.items():
        if key[:2] == (flat, device):
            _captured.append(table)
            return table
    arena, used = _arena(), _arena_used[0]
    if used + len(values) > len(arena):
        raise RuntimeError(
            f"a CUDA graph captured {used + len(values)} words of pointer tables, expected at most "
            f"{len(arena)}: pass out= so that calls before the capture have the same addresses"
        )
    _arena_used[0] += len(values)
    host = arena[used : used + len(values)]
    host.copy_(torch.tensor(values, dtype=torch.int64))
    table = torch.empty(len(values), dtype=torch.int64, device=device)
    table.copy_(host, non_blocking=True)
    _captured.append(table)
    return table


@functools.cache
def _arena() -> Any:
    """Pinned memory that the copies inside CUDA graphs read at every replay."""
    import torch

    return torch.empty(_ARENA_WORDS, dtype=torch.int64, pin_memory=True)


def float32(value: float) -> float:
    """The float32 number nearest a float64 one (infinite beyond the largest)."""
    return ctypes.c_float(value).value


def coordinates(draw: Draw) -> dict[str, Any]:
    """seed and step of a kernel: a host number, or where it lies on the device."""
    found: dict[str, Any] = {}
    for name, value in (("seed", draw.seed), ("step", draw.step)):
        on_host = isinstance(value, int)
        found[name] = _signed(value) if on_host else 0
        found[f"{name}_at"] = None if on_host else value
    return found


def _signed(value: int) -> int:
    return value - 2**64 if value >= 2**63 else value


def estimator(radius: float, gamma: Any, norm: Any) -> dict[str, Any]:
    """gamma and norm of a kernel: its float32 constants, or where gamma and norm lie."""
    on_host = isinstance(gamma, (int, float))
    norm_on_host = isinstance(norm, (int, float))
    return {
        "c1": float32(radius * math.sqrt(1.0 - gamma)) if on_host else 0.0,
        "b": float32(math.sqrt(gamma)) if on_host else 0.0,
        "gamma_at": None if on_host else gamma,
        "norm": float32(norm) if norm_on_host else 0.0,
        "norm_at": None if norm_on_host else norm,
    }


def noise_of(draw: Draw, device: Any) -> dict[str, Any]:
    """The constexprs that choose a noise, and the atanh table where it is read."""
    tanh = draw.surrogate == "tanh" and draw.noise == "published"
    return {
        "atanh": _atanh(device) if tanh else None,
        "SURROGATE": _surrogate.number(draw.surrogate),
        "NOISE": _surrogate.noise_number(draw.noise),
        "RADIUS": _surrogate.radius(draw.surrogate, draw.noise),
    }


@functools.cache
def _atanh(device: Any) -> Any:
    import torch

    return torch.tensor(_tables.atanh_table(), dtype=torch.float32, device=device)
