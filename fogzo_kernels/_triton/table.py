"""The host's side of ``tiles``: the table of tensors, and scalars on their way to a kernel."""

from __future__ import annotations

import ctypes
import functools
import math
import struct
from collections import OrderedDict
from typing import Any

from .. import _surrogate, _tables
from .._check import Draw, View
from .tiles import COLUMNS

TILE = 1024
_KEPT = 128
_tables_of: OrderedDict[Any, Any] = OrderedDict()
_captured: list[Any] = []  # what a CUDA graph reads must live as long as it


def segments(view: View, draw: Draw) -> tuple[int, int, int]:
    """Number of segments, elements of one, element numbers between their starts."""
    if draw.row_pitch == view.cols or view.rows <= 1:
        return 1, view.rows * view.cols, 0
    return view.rows, view.cols, draw.row_pitch


def programs_of(view: View, draw: Draw, tiles: int) -> int:
    """Programs of a segment: of the one that touches the most tiles."""
    count, length, pitch = segments(view, draw)
    before = draw.offset % TILE
    if count > 1 and pitch % TILE:
        before = TILE - 1
    return -(-((before + length - 1) // TILE + 1) // tiles)


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
    parted = [r for r in rows if r["group"] < r["numel"]]
    if not parted:
        return 0
    names = ("group", "offset", "pitch", "segment")
    return next(n for n in (128, 4, 1) if all(r[name] % n == 0 for r in parted for name in names))


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
    import torch

    padding = ((2**62,) + (0,) * (len(COLUMNS) - 1)) * (2**steps - len(flat) // len(COLUMNS))
    if device.type == "cpu":
        return torch.tensor(flat + padding, dtype=torch.int64)
    with torch.cuda.device(device):
        capturing = torch.cuda.is_current_stream_capturing()
        key = (flat, device, torch.cuda.current_stream().cuda_stream)
        if not capturing and key in _tables_of:
            _tables_of.move_to_end(key)
            return _tables_of[key]
        host = torch.tensor(flat + padding, dtype=torch.int64).pin_memory()
        table = host.to(device, non_blocking=True)
    if capturing:
        _captured.append((host, table))
    else:
        _tables_of[key] = table
        while len(_tables_of) > _KEPT:
            _tables_of.popitem(last=False)
    return table


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


def estimator(draw: Draw, gamma: Any, norm: Any) -> dict[str, Any]:
    """gamma and norm of a kernel: its float32 constants, or where gamma and norm lie."""
    on_host, radius = isinstance(gamma, (int, float)), _surrogate.radius(draw.surrogate, draw.noise)
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
