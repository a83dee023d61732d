"""Native cpu backend of perturb_quantize."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View
from .._types import Flips, Grid, Packed

FORM_NUMBERS = {"values": 0, "codes": 1, "packed": 2}
NO_GRID = 4


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return "this release has no CUDA kernel for it" if backend == "cuda" else None


def perturb_quantize_cpu(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    given, count = out
    form: str = call["form"]
    grid, view = call["grid"], call["view"]
    if form == "flips" or grid is None or (form == "packed" and len(view.shape) > 2):
        return _run("perturb_quantize", [call], [given], count)[0], count
    result = _output(form, call, given)
    draw: Draw = call["draw"]
    kept: list[Any] = []  # copies must outlive the launch
    status = _native.cpu().perturb_quantize(
        _array.address(call["w"], kept),
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result.data if form == "packed" else result),
        0 if count is None else _array.pointer(count),
        _native.table(draw.surrogate, draw.noise, "cpu"),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        draw.offset,
        draw.row_pitch,
        grid.number,
        grid.code_bits,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        FORM_NUMBERS[form],
        call["sides"],
        draw.probes,
        draw.first_probe,
        draw.seed,
        draw.step,
        draw.tensor,
        call["gamma"],
        call["norm"],
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
    return result, count


def perturb_quantize_many_cpu(
    calls: list[dict[str, Any]], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    outs, counts = out
    return _run("perturb_quantize_many", calls, outs, counts), counts


def _run(op: str, calls: list[dict[str, Any]], outs: list[Any], counts: Any) -> list[Any]:
    """One launch for all tensors; flips, and bytes that no row of a view holds, come from codes."""
    first = calls[0]
    form = first["form"]
    whole = form == "values" or form == "codes"
    if form == "packed":
        whole = all(len(call["view"].shape) <= 2 for call in calls)
    results = [
        _output(form if whole else "codes", call, out if whole else None)
        for call, out in zip(calls, outs, strict=True)
    ]
    draw: Draw = first["draw"]
    if counts is None and form == "flips":
        counts = _array.empty((len(calls), *first["shape"][:1]), "int64", first["view"].kind)
    kept: list[Any] = []  # copies must outlive the launch
    rows = []
    counted = 0 if counts is None else _array.pointer(counts)  # where the next tensor's flips go
    for call, result in zip(calls, results, strict=True):
        rows.append(_row(call, result, counted, kept))
        counted += counted and 8 * call["sides"] * draw.probes
    status = _native.cpu().perturb_quantize_many(
        rows,
        _native.table_for(calls),
        _surrogate.noise_number(draw.noise),
        FORM_NUMBERS[form if whole else "codes"],
        first["sides"],
        draw.probes,
        draw.first_probe,
        draw.seed,
        draw.step,
        first["gamma"],
        first["norm"],
        _array.threads(),
    )
    _native.raise_on(op, "_cpu", status)
    if counts is not None:
        for i, call in enumerate(calls):
            if call["grid"] is None:
                counts[i] = 0
    if form == "flips":
        most = counts.reshape(len(calls), -1).tolist()
        return [_flips(*columns) for columns in zip(calls, results, most, outs, strict=True)]
    if not whole:
        return [_packed(*columns) for columns in zip(calls, results, outs, strict=True)]
    return results


def _row(call: dict[str, Any], result: Any, counted: int, kept: list[Any]) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/cpu.h."""
    view: View = call["view"]
    draw: Draw = call["draw"]
    grid: Grid | None = call["grid"]
    return (
        _array.address(call["w"], kept),
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result.data if isinstance(result, Packed) else result),
        0 if grid is None else counted,
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        draw.tensor,
        NO_GRID if grid is None else grid.number,
        0 if grid is None else grid.code_bits,
        _surrogate.number(draw.surrogate),
    )


def _output(form: str, call: dict[str, Any], given: Any) -> Any:
    if given is not None:
        return given
    shape, kind = call["shape"], call["view"].kind
    if form != "packed":
        return _array.empty(shape, "float32" if form == "values" else "uint8", kind)
    bits = call["grid"].storage_bits
    return Packed(_array.empty(_check.packed_shape(shape, bits), "uint8", kind), bits, shape)


def _packed(call: dict[str, Any], codes: Any, given: Packed | None) -> Packed:
    result: Packed = _output("packed", call, given)
    shape = tuple(codes.shape)
    status = _native.cpu().pack(
        _array.pointer(codes),
        _array.pointer(result.data),
        prod(shape[:-1]),
        shape[-1],
        result.bits,
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
    return result


def _flips(call: dict[str, Any], codes: Any, counts: list[int], given: Flips | None) -> Flips:
    view: View = call["view"]
    most = max(counts)
    room = most if given is None else given.index.shape[1]
    if most > room:
        _check.fail("perturb_quantize", "out", f"has room for {room} flips", f"{most}")
    sides = codes.shape[0]
    result = given or Flips(
        _array.empty(view.shape, "uint8", view.kind),
        _array.empty((sides, room), "int64", view.kind),
        _array.empty((sides, room), "uint8", view.kind),
        _array.empty((sides,), "int64", view.kind),
    )
    _quantize_base(call, result.base)
    status = _native.cpu().find_flips(
        _array.pointer(result.base),
        _array.pointer(codes),
        _array.pointer(result.index),
        _array.pointer(result.code),
        _array.pointer(result.count),
        sides,
        prod(view.shape),
        room,
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
    return result


def _quantize_base(call: dict[str, Any], base: Any) -> None:
    w, scale = _array.contiguous(call["w"]), _array.contiguous(call["scale"])
    view, grid = call["view"], call["grid"]
    status = _native.cpu().quantize(
        _array.pointer(w),
        _array.pointer(scale),
        _array.pointer(base),
        *view.sizes,
        grid.number,
        grid.code_bits,
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
