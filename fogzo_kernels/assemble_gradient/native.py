"""Native cpu backend of assemble_gradient."""

from __future__ import annotations

from typing import Any

from .. import _array, _native, _surrogate
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
    result = _array.empty(view.shape, "float32", view.kind) if out is None else out
    kept: list[Any] = [_array.float32(differences)]  # copies must outlive the launch
    status = _native.cpu().assemble_gradient(
        _array.address(grad, kept),
        _array.address(scale, kept),
        _array.address(kept[0], kept),
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
    return _run("assemble_gradient_many", calls, out)


def _run(op: str, calls: list[dict[str, Any]], outs: list[Any]) -> list[Any]:
    first = calls[0]
    results = [
        _array.empty(call["view"].shape, "float32", call["view"].kind) if given is None else given
        for call, given in zip(calls, outs, strict=True)
    ]
    kept: list[Any] = []  # copies must outlive the launch
    rows = [_row(call, result, kept) for call, result in zip(calls, results, strict=True)]
    differences = _array.float32(first["differences"])
    draw: Draw = first["draw"]
    status = _native.cpu().assemble_gradient_many(
        rows,
        _array.address(differences, kept),
        _native.table_for(calls),
        _surrogate.noise_number(draw.noise),
        draw.probes,
        draw.first_probe,
        draw.seed,
        draw.step,
        first["gamma"],
        first["norm"],
        _array.threads(),
    )
    _native.raise_on(op, "_cpu", status)
    return results


def _row(call: dict[str, Any], result: Any, kept: list[Any]) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/cpu.h."""
    view: View = call["view"]
    draw: Draw = call["draw"]
    return (
        0,
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result),
        0,
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        draw.tensor,
        0,
        0,
        _surrogate.number(draw.surrogate),
    )
