"""Launches of perturb_quantize on the CPU, settled once for calls that repeat."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _check, _native, _surrogate
from .._check import Draw, View
from .._types import Grid, Packed
from .native_flips import prepare_flips

FORM_NUMBERS = {"values": 0, "codes": 1, "packed": 2}
NO_GRID = 4


def prepare_perturb_quantize(
    view: View, draw: Draw, grid: Grid | None, form: str, shape: tuple[int, ...]
) -> Callable[..., Any] | None:
    """The cpu launch of one tensor; None for what more than one launch makes, but for flips."""
    if form == "flips":
        codes = prepare_perturb_quantize(view, draw, grid, "codes", shape)
        return None if codes is None else prepare_flips(codes, view, grid, shape)
    if grid is None or (form == "packed" and len(view.shape) > 2):
        return None
    launcher = _native.cpu().perturb_quantize
    packed = form == "packed"
    new = _maker(form, shape, grid, view.kind)
    constants = (
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
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)

    def launch(
        w: Any, grad: Any, scale: Any, out: Any, count: Any, seed: int, step: int, gamma: float,
        norm: float,
    ) -> Any:  # fmt: skip
        result = new() if out is None else out
        kept: list[Any] = []  # copies must outlive the launch
        status = launcher(
            address(w, kept),
            address(grad, kept),
            address(scale, kept),
            pointer(result.data if packed else result),
            0 if count is None else pointer(count),
            *constants,
            seed,
            step,
            tensor,
            gamma,
            norm,
            _array.threads(),
        )
        if status:
            _native.raise_on("perturb_quantize", "_cpu", status)
        return result

    return launch


def prepare_perturb_quantize_many(
    parts: list[tuple[View, Draw, tuple[int, ...]]],
    grids: list[Grid | None],
    form: str,
    side_count: int,
) -> Callable[..., Any] | None:
    """The cpu launch of many tensors, each a view, a draw and the shape of its sides."""
    packed = form == "packed"
    if form == "flips" or (packed and any(len(view.shape) > 2 for view, _, _ in parts)):
        return None
    launcher = _native.cpu().perturb_quantize_many
    kind, first = parts[0][0].kind, parts[0][1]
    address, pointer = _array.address_of(kind), _array.pointer_of(kind)
    makers = [
        _maker(form, shape, grid, kind) for (*_, shape), grid in zip(parts, grids, strict=True)
    ]
    own = [settled(view, draw, grid) for (view, draw, _), grid in zip(parts, grids, strict=True)]
    bare = [i for i, grid in enumerate(grids) if grid is None]
    places = [None if i in bare else 8 * side_count * i for i in range(len(grids))]
    table = max(_native.table(draw.surrogate, draw.noise, "cpu") for _, draw, _ in parts)
    constants = (
        table,
        _surrogate.noise_number(first.noise),
        FORM_NUMBERS[form],
        side_count // first.probes,
        first.probes,
        first.first_probe,
    )

    def launch(
        ws: list[Any], grads: list[Any], scales: list[Any], outs: Any, counts: Any, seed: int,
        step: int, gamma: float, norm: float,
    ) -> list[Any]:  # fmt: skip
        if outs is None:
            results = [new() for new in makers]
        else:
            results = [new() if out is None else out for new, out in zip(makers, outs, strict=True)]
        kept: list[Any] = []  # copies must outlive the launch
        first_count = 0 if counts is None else pointer(counts)
        rows = [
            (
                address(w, kept),
                address(grad, kept),
                address(scale, kept),
                pointer(result.data if packed else result),
                first_count + counted if first_count and counted is not None else 0,
                *row,
            )
            for w, grad, scale, result, counted, row in zip(
                ws, grads, scales, results, places, own, strict=True
            )
        ]
        status = launcher(rows, *constants, seed, step, gamma, norm, _array.threads())
        if status:
            _native.raise_on("perturb_quantize_many", "_cpu", status)
        if first_count:
            for i in bare:
                counts[i] = 0
        return results

    return launch


def settled(view: View, draw: Draw, grid: Grid | None) -> tuple[int, ...]:
    """The members of fogzo_tensor behind its addresses, csrc/include/fogzo/tensor.h."""
    return (
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        draw.tensor,
        NO_GRID if grid is None else grid.number,
        0 if grid is None else grid.code_bits,
        _surrogate.number(draw.surrogate),
    )


def _maker(form: str, shape: tuple[int, ...], grid: Grid | None, kind: str) -> Callable[[], Any]:
    """What makes a new result on the CPU."""
    if form != "packed" or grid is None:
        return _array.maker(shape, "float32" if form == "values" else "uint8", kind)
    bits = grid.storage_bits
    new = _array.maker(_check.packed_shape(shape, bits), "uint8", kind)
    return lambda: Packed(new(), bits, shape)
