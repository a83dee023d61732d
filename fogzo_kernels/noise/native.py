"""Native backends of noise: the cpu module and the first CUDA kernel."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
from .._check import Draw, View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    if case is not None and not case[0]:
        return "seed and step on the device are not read by it"
    return None


def noise_cpu(draw: Draw, device: Any, view: View, out: Any) -> Any:
    return _run("_cpu", draw, device, view, out, _array.threads())


def noise_cuda(draw: Draw, device: Any, view: View, out: Any) -> Any:
    import torch

    with torch.cuda.device(device):
        return _run("_cuda", draw, device, view, out, _native.stream(device))


def _run(module: str, draw: Draw, device: Any, view: View, out: Any, last: int) -> Any:
    u = out if out is not None else _array.empty(view.shape, "float32", view.kind, device)
    status = _native.module(module).noise(
        _array.pointer(u),
        _native.table(draw.surrogate, draw.noise, device),
        view.rows,
        view.cols,
        draw.offset,
        draw.row_pitch,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        draw.seed,
        draw.step,
        draw.tensor,
        draw.first_probe,
        last,
    )
    _native.raise_on("noise", module, status)
    return u
