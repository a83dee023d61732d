"""Native cpu backend of perturb_quantize."""

from __future__ import annotations

from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View
from .._types import Grid, Packed

FORM_NUMBERS = {"values": 0, "codes": 1, "packed": 2}
NO_GRID = 4


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    if backend == "cuda":
        return "this release has no CUDA kernel for it"
    if case is None:
        return None
    if op == "perturb_quantize_many":
        return next(
            filter(None, (supports("perturb_quantize", backend, one) for one in case)), None
        )
    form, dims = case
    if form == "flips":
        return "it does not give flips"
    if form == "packed" and dims > 2:
        return "it packs rows of the view, which are not rows of a weight of more than 2 dimensions"
    return None


def perturb_quantize_cpu(
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    draw: Draw,
    gamma: float,
    norm: float,
    form: str,
    sides: int,
    count_flips: bool,
    capacity: None,
    view: View,
    out: tuple[Any, Any],
) -> tuple[Any, Any]:
    w, grad = _array.contiguous(w), _array.contiguous(grad)
    scale = _array.contiguous(scale)
    result, flip_count = out
    if result is None:
        result = _output(form, (sides * draw.probes, *view.shape), grid, view.kind)
    data = result.data if isinstance(result, Packed) else result
    status = _native.cpu().perturb_quantize(
        _array.pointer(w),
        _array.pointer(grad),
        _array.pointer(scale),
        _array.pointer(data),
        _array.pointer(flip_count) if count_flips else 0,
        _native.table(draw.surrogate, draw.noise, "cpu"),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        draw.offset,
        draw.row_pitch,
        NO_GRID if grid is None else grid.number,
        0 if grid is None else grid.code_bits,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        FORM_NUMBERS[form],
        sides,
        draw.probes,
        draw.first_probe,
        draw.seed,
        draw.step,
        draw.tensor,
        gamma,
        norm,
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
    return result, flip_count


def _output(form: str, shape: tuple[int, ...], grid: Grid | None, kind: str) -> Any:
    if form != "packed" or grid is None:
        return _array.empty(shape, "float32" if form == "values" else "uint8", kind)
    bits = grid.storage_bits
    return Packed(_array.empty(_check.packed_shape(shape, bits), "uint8", kind), bits, shape)


def perturb_quantize_many_cpu(calls: list[dict[str, Any]], out: list[Any]) -> list[tuple[Any, Any]]:
    for call in calls:  # the launcher of the first would write before that of the last checks
        _check.scale_values("perturb_quantize_many", call["scale"])
    return [perturb_quantize_cpu(**call, out=one) for call, one in zip(calls, out, strict=True)]
