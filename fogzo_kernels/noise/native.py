"""Native backends of noise: cpu and cuda."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import Draw, View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    if backend == "cpu" and case is not None and not case[0]:
        return "seed and step on the device are not read by it"
    return None


def noise_cpu(draw: Draw, device: Any, view: View, out: Any) -> Any:
    return _run(_native.on_cpu(), (draw.seed, draw.step), draw, view, out)


def noise_cuda(draw: Draw, device: Any, view: View, out: Any) -> Any:
    with _native.on_cuda(device) as at:
        return _run(at, (_native.scalars(draw),), draw, view, out)


def _run(at: _native.Place, scalars: tuple[Any, ...], draw: Draw, view: View, out: Any) -> Any:
    u = out if out is not None else _array.empty(view.shape, "float32", view.kind, at.device)
    status = at.module.noise(
        _array.pointer(u),
        _native.table(draw.surrogate, draw.noise, at.device),
        view.rows,
        view.cols,
        draw.offset,
        draw.row_pitch,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        *scalars,
        draw.tensor,
        draw.first_probe,
        at.last,
    )
    _native.raise_on("noise", at.name, status)
    return u
