"""Native cpu backend of assemble_gradient."""

from __future__ import annotations

from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def assemble_gradient_cpu(
    grad: Any,
    scale: Any,
    differences: Any,
    draw: Draw,
    gamma: float,
    norm: float,
    view: View,
    out: Any,
) -> Any:
    grad, scale = _array.contiguous(grad), _array.contiguous(scale)
    differences = _array.contiguous(_array.float32(differences))
    result = out if out is not None else _array.empty(view.shape, "float32", view.kind)
    status = _native.cpu().assemble_gradient(
        _array.pointer(grad),
        _array.pointer(scale),
        _array.pointer(differences),
        _array.pointer(result),
        _native.table(draw.surrogate, draw.noise, "cpu"),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        draw.offset,
        draw.row_pitch,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        draw.probes,
        draw.first_probe,
        draw.seed,
        draw.step,
        draw.tensor,
        gamma,
        norm,
        _array.threads(),
    )
    _native.raise_on("assemble_gradient", "_cpu", status)
    return result


def assemble_gradient_many_cpu(calls: list[dict[str, Any]], out: list[Any]) -> list[Any]:
    for call in calls:  # the launcher of the first would write before that of the last checks
        _check.scale_values("assemble_gradient_many", call["scale"])
    return [assemble_gradient_cpu(**call, out=one) for call, one in zip(calls, out, strict=True)]
