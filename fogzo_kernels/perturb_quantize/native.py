"""Native backends of perturb_quantize: cpu and cuda."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View
from .._types import Packed
from .native_flips import find_flips
from .native_plans import FORM_NUMBERS, settled
from .native_plans import prepare_perturb_quantize as prepare_perturb_quantize
from .native_plans import prepare_perturb_quantize_many as prepare_perturb_quantize_many


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def perturb_quantize_cpu(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    result, count = out
    return _run(_native.on_cpu(), "perturb_quantize", [call], [result], count)[0], count


def perturb_quantize_cuda(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    result, count = out
    with _native.on_cuda(call["w"].device) as at:
        return _run(at, "perturb_quantize", [call], [result], count)[0], count


def perturb_quantize_many_cpu(
    calls: list[dict[str, Any]], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    outs, counts = out
    return _run(_native.on_cpu(), "perturb_quantize_many", calls, outs, counts), counts


def perturb_quantize_many_cuda(
    calls: list[dict[str, Any]], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    outs, counts = out
    with _native.on_cuda(calls[0]["w"].device) as at:
        return _run(at, "perturb_quantize_many", calls, outs, counts), counts


def _run(
    at: _native.Place,
    op: str,
    calls: list[dict[str, Any]],
    outs: list[Any],
    counts: Any,
) -> list[Any]:
    """One launch for all tensors; flips, and what the launcher cannot pack, come from codes."""
    first = calls[0]
    form = first["form"]
    whole = form == "values" or form == "codes"
    if form == "packed":
        whole = all(_packs(at, call) for call in calls)
    results = [
        _output(at, form if whole else "codes", call, out if whole else None)
        for call, out in zip(calls, outs, strict=True)
    ]
    draw: Draw = first["draw"]
    if counts is None and form == "flips":
        shape = (len(calls), *first["shape"][:1])
        counts = _array.empty(shape, "int64", first["view"].kind, at.device)
    kept: list[Any] = []  # copies must outlive the launch
    rows = []
    counted = 0 if counts is None else _array.pointer(counts)  # where the next tensor's flips go
    for call, result in zip(calls, results, strict=True):
        rows.append(_row(call, result, counted, kept))
        counted += counted and 8 * call["sides"] * draw.probes
    scalars: tuple[Any, ...] = (draw.seed, draw.step, first["gamma"], first["norm"])
    if at.name == "_cuda":
        scalars = (_native.scalars(draw, first["gamma"], first["norm"]),)
    status = at.module.perturb_quantize_many(
        rows,
        _native.table_for(calls, at.device),
        _surrogate.noise_number(draw.noise),
        FORM_NUMBERS[form if whole else "codes"],
        first["sides"],
        draw.probes,
        draw.first_probe,
        *scalars,
        at.last,
    )
    _native.raise_on(op, at.name, status)
    if counts is not None:
        for i, call in enumerate(calls):
            if call["grid"] is None:
                counts[i] = 0
    if form == "flips":
        most: list[Any] = [None] * len(calls)
        if None in outs or first["view"].device == "cpu":  # else nothing is read back
            most = counts.reshape(len(calls), -1).tolist()
        parts = zip(calls, results, most, outs, strict=True)
        return [find_flips(at, *columns) for columns in parts]
    if not whole:
        return [_packed(at, *columns) for columns in zip(calls, results, outs, strict=True)]
    return results


def _packs(at: _native.Place, call: dict[str, Any]) -> bool:
    """Whether the launcher packs this tensor: on a GPU bytes never hold codes of two tiles."""
    view: View = call["view"]
    if at.name == "_cpu":
        return len(view.shape) <= 2
    draw: Draw = call["draw"]
    per_byte = 8 // call["grid"].storage_bits
    return all(size % per_byte == 0 for size in (view.shape[-1], draw.offset, draw.row_pitch))


def _row(call: dict[str, Any], result: Any, counted: int, kept: list[Any]) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/tensor.h."""
    return (
        _array.address(call["w"], kept),
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result.data if isinstance(result, Packed) else result),
        0 if call["grid"] is None else counted,
        *settled(call["view"], call["draw"], call["grid"]),
    )


def _output(at: _native.Place, form: str, call: dict[str, Any], given: Any) -> Any:
    if given is not None:
        return given
    shape, kind = call["shape"], call["view"].kind
    if form != "packed":
        return _array.empty(shape, "float32" if form == "values" else "uint8", kind, at.device)
    bits = call["grid"].storage_bits
    data = _array.empty(_check.packed_shape(shape, bits), "uint8", kind, at.device)
    return Packed(data, bits, shape)


def _packed(at: _native.Place, call: dict[str, Any], codes: Any, given: Packed | None) -> Packed:
    result: Packed = _output(at, "packed", call, given)
    shape = tuple(codes.shape)
    status = at.module.pack(
        _array.pointer(codes),
        _array.pointer(result.data),
        prod(shape[:-1]),
        shape[-1],
        result.bits,
        at.last,
    )
    _native.raise_on("perturb_quantize", at.name, status)
    return result
