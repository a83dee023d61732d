"""Native backends of perturb_quantize: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View
from .._types import Flips, Grid, Packed

FORM_NUMBERS = {"values": 0, "codes": 1, "packed": 2}
NO_GRID = 4


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare(
    view: View, draw: Draw, grid: Grid | None, form: str, shape: tuple[int, ...]
) -> Callable[..., Any] | None:
    """The cpu launch of one tensor; None for what more than one launch makes."""
    if form == "flips" or grid is None or (form == "packed" and len(view.shape) > 2):
        return None
    launcher = _native.cpu().perturb_quantize
    packed, bits = form == "packed", grid.storage_bits
    dims = _check.packed_shape(shape, bits) if packed else shape
    new = _array.maker(dims, "float32" if form == "values" else "uint8", view.kind)
    settled = (
        _native.table(draw.surrogate, draw.noise, "cpu"),
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        grid.number,
        grid.code_bits,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        FORM_NUMBERS[form],
        shape[0] // draw.probes,
        draw.probes,
        draw.first_probe,
    )
    tensor = draw.tensor

    def launch(
        w: Any, grad: Any, scale: Any, out: Any, count: Any, seed: int, step: int, gamma: float,
        norm: float,
    ) -> Any:  # fmt: skip
        result = out
        if out is None:
            result = Packed(new(), bits, shape) if packed else new()
        kept: list[Any] = []  # copies must outlive the launch
        status = launcher(
            _array.address(w, kept),
            _array.address(grad, kept),
            _array.address(scale, kept),
            _array.pointer(result.data if packed else result),
            0 if count is None else _array.pointer(count),
            *settled,
            seed,
            step,
            tensor,
            gamma,
            norm,
            _array.threads(),
        )
        _native.raise_on("perturb_quantize", "_cpu", status)
        return result

    return launch


def perturb_quantize_cpu(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    result, count = out
    return _run(_native.on_cpu(), "perturb_quantize", [call], [{}], [result], count)[0], count


def perturb_quantize_cuda(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    result, count = out
    with _native.on_cuda(call["w"].device) as at:
        return _run(at, "perturb_quantize", [call], [{}], [result], count)[0], count


def perturb_quantize_many_cpu(
    calls: list[dict[str, Any]], made: list[Any], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    outs, counts = out
    return _run(_native.on_cpu(), "perturb_quantize_many", calls, made, outs, counts), counts


def perturb_quantize_many_cuda(
    calls: list[dict[str, Any]], made: list[Any], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    outs, counts = out
    with _native.on_cuda(calls[0]["w"].device) as at:
        return _run(at, "perturb_quantize_many", calls, made, outs, counts), counts


def _run(
    at: _native.Place,
    op: str,
    calls: list[dict[str, Any]],
    made: list[dict[str, Any]],
    outs: list[Any],
    counts: Any,
) -> list[Any]:
    """One launch for all tensors; flips, and what the launcher cannot pack, come from codes.

    made: what is kept for other calls of the same plans.
    """
    first = calls[0]
    form = first["form"]
    whole = form == "values" or form == "codes"
    if form == "packed":
        whole = all(_packs(at, call) for call in calls)
    results = [
        _output(at, form if whole else "codes", call, kept, out if whole else None)
        for call, kept, out in zip(calls, made, outs, strict=True)
    ]
    draw: Draw = first["draw"]
    if counts is None and form == "flips":
        shape = (len(calls), *first["shape"][:1])
        counts = _array.empty(shape, "int64", first["view"].kind, at.device)
    kept: list[Any] = []  # copies must outlive the launch
    rows = []
    counted = 0 if counts is None else _array.pointer(counts)  # where the next tensor's flips go
    for call, own, result in zip(calls, made, results, strict=True):
        rows.append(_row(call, own, result, counted, kept))
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
        return [_flips(at, *columns) for columns in zip(calls, results, most, outs, strict=True)]
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


def _row(
    call: dict[str, Any], made: dict[str, Any], result: Any, counted: int, kept: list[Any]
) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/tensor.h."""
    settled = made.get("row")
    if settled is None:
        settled = made["row"] = _settled(call["view"], call["draw"], call["grid"])
    return (
        _array.address(call["w"], kept),
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result.data if isinstance(result, Packed) else result),
        0 if call["grid"] is None else counted,
        *settled,
    )


def _settled(view: View, draw: Draw, grid: Grid | None) -> tuple[int, ...]:
    return (
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        draw.tensor,
        NO_GRID if grid is None else grid.number,
        0 if grid is None else grid.code_bits,
        _surrogate.number(draw.surrogate),
    )


def _output(
    at: _native.Place, form: str, call: dict[str, Any], made: dict[str, Any], given: Any
) -> Any:
    if given is not None:
        return given
    shape, kind = call["shape"], call["view"].kind
    if form == "packed" and at.name == "_cpu":
        bits = call["grid"].storage_bits
        new = made.get("packed")
        if new is None:
            dims = _check.packed_shape(shape, bits)
            new = made["packed"] = _array.maker(dims, "uint8", kind)
        return Packed(new(), bits, shape)
    if form != "packed":
        return _array.empty(shape, "float32" if form == "values" else "uint8", kind, at.device)
    bits = call["grid"].storage_bits
    data = _array.empty(_check.packed_shape(shape, bits), "uint8", kind, at.device)
    return Packed(data, bits, shape)


def _packed(at: _native.Place, call: dict[str, Any], codes: Any, given: Packed | None) -> Packed:
    result: Packed = _output(at, "packed", call, {}, given)
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


def _flips(
    at: _native.Place,
    call: dict[str, Any],
    codes: Any,
    counts: list[int] | None,
    given: Flips | None,
) -> Flips:
    view: View = call["view"]
    most = max(counts or [0])
    room = most if given is None else given.index.shape[1]
    if most > room and (given is None or view.device == "cpu"):
        _check.fail("perturb_quantize", "out", f"has room for {room} flips", f"{most}")
    sides = codes.shape[0]
    result = given or Flips(
        _array.empty(view.shape, "uint8", view.kind, at.device),
        _array.empty((sides, room), "int64", view.kind, at.device),
        _array.empty((sides, room), "uint8", view.kind, at.device),
        _array.empty((sides,), "int64", view.kind, at.device),
    )
    _quantize_base(at, call, result.base)
    workspace: tuple[int, ...] = ()
    if at.name == "_cuda":
        size = at.module.find_flips_workspace(sides, prod(view.shape))
        parts = _native.workspace(at, size)
        workspace = (_array.pointer(parts), size)
    status = at.module.find_flips(
        _array.pointer(result.base),
        _array.pointer(codes),
        _array.pointer(result.index),
        _array.pointer(result.code),
        _array.pointer(result.count),
        *workspace,
        sides,
        prod(view.shape),
        room,
        at.last,
    )
    _native.raise_on("perturb_quantize", at.name, status)
    return result


def _quantize_base(at: _native.Place, call: dict[str, Any], base: Any) -> None:
    w, scale = _array.contiguous(call["w"]), _array.contiguous(call["scale"])
    view, grid = call["view"], call["grid"]
    status = at.module.quantize(
        _array.pointer(w),
        _array.pointer(scale),
        _array.pointer(base),
        *view.sizes,
        grid.number,
        grid.code_bits,
        at.last,
    )
    _native.raise_on("perturb_quantize", at.name, status)
