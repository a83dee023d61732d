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


def perturb_quantize_cpu(out: tuple[Any, Any], **call: Any) -> tuple[Any, Any]:
    return _run("perturb_quantize", [call], [out])[0]


def perturb_quantize_many_cpu(calls: list[dict[str, Any]], out: list[Any]) -> list[tuple[Any, Any]]:
    return _run("perturb_quantize_many", calls, out)


def _run(
    op: str, calls: list[dict[str, Any]], outs: list[tuple[Any, Any]]
) -> list[tuple[Any, Any]]:
    """One launch for all tensors; flips, and bytes that no row of a view holds, come from codes."""
    form = calls[0]["form"]
    whole = form == "values" or form == "codes"
    if form == "packed":
        whole = all(len(call["view"].shape) <= 2 for call in calls)
    results = [
        _output(form if whole else "codes", call, result if whole else None)
        for call, (result, _) in zip(calls, outs, strict=True)
    ]
    counts = [_counts(form, call, count) for call, (_, count) in zip(calls, outs, strict=True)]
    kept: list[Any] = []  # copies must outlive the launch
    rows = [
        _row(call, result, count, kept)
        for call, result, count in zip(calls, results, counts, strict=True)
    ]
    first = calls[0]
    draw: Draw = first["draw"]
    status = _native.cpu().perturb_quantize_many(
        rows,
        _native.table_for([call["draw"] for call in calls]),
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
    if form == "flips":
        results = [
            _flips(call, codes, count, given)
            for call, codes, count, (given, _) in zip(calls, results, counts, outs, strict=True)
        ]
    elif not whole:
        results = [
            _packed(call, codes, given)
            for call, codes, (given, _) in zip(calls, results, outs, strict=True)
        ]
    return [
        (result, count if call["count_flips"] else None)
        for call, result, count in zip(calls, results, counts, strict=True)
    ]


def _row(call: dict[str, Any], result: Any, count: Any, kept: list[Any]) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/cpu.h."""
    arrays = [_array.contiguous(call[name]) for name in ("w", "grad", "scale")]
    kept.extend(arrays)
    view: View = call["view"]
    draw: Draw = call["draw"]
    grid: Grid | None = call["grid"]
    return (
        *(_array.pointer(array) for array in arrays),
        _array.pointer(result.data if isinstance(result, Packed) else result),
        0 if count is None else _array.pointer(count),
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        draw.offset,
        draw.row_pitch,
        draw.tensor,
        NO_GRID if grid is None else grid.number,
        0 if grid is None else grid.code_bits,
        _surrogate.number(draw.surrogate),
    )


def _shape(call: dict[str, Any]) -> tuple[int, ...]:
    return (call["sides"] * call["draw"].probes, *call["view"].shape)


def _output(form: str, call: dict[str, Any], given: Any) -> Any:
    if given is not None:
        return given
    shape, kind = _shape(call), call["view"].kind
    if form != "packed":
        return _array.empty(shape, "float32" if form == "values" else "uint8", kind)
    bits = call["grid"].storage_bits
    return Packed(_array.empty(_check.packed_shape(shape, bits), "uint8", kind), bits, shape)


def _counts(form: str, call: dict[str, Any], given: Any) -> Any:
    """Where the launch counts flips: the caller's array, or one of our own where flips need it."""
    if given is None and form == "flips":
        return _array.empty(_shape(call)[:1], "int64", call["view"].kind)
    return given


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


def _flips(call: dict[str, Any], codes: Any, count: Any, given: Flips | None) -> Flips:
    view: View = call["view"]
    most = max(count.tolist())
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
        view.rows,
        view.cols,
        view.scale_rows,
        view.scale_cols,
        grid.number,
        grid.code_bits,
        _array.threads(),
    )
    _native.raise_on("perturb_quantize", "_cpu", status)
