"""Native backends of assemble_gradient: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _native, _surrogate
from .._check import Draw, View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_assemble_gradient(view: View, draw: Draw) -> Callable[..., Any]:
    """The cpu launch of one tensor."""
    launcher = _native.cpu().assemble_gradient
    new = _array.maker(view.shape, "float32", view.kind)
    table = _native.table(draw.surrogate, draw.noise, "cpu")
    settled = (
        *view.sizes,
        draw.offset,
        draw.row_pitch,
        _surrogate.number(draw.surrogate),
        _surrogate.noise_number(draw.noise),
        draw.probes,
        draw.first_probe,
    )
    tensor = draw.tensor
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)

    def launch(
        grad: Any, scale: Any, differences: Any, out: Any, seed: int, step: int, gamma: float,
        norm: float,
    ) -> Any:  # fmt: skip
        result = new() if out is None else out
        kept: list[Any] = [_array.float32(differences)]  # copies must outlive the launch
        status = launcher(
            address(grad, kept),
            address(scale, kept),
            address(kept[0], kept),
            pointer(result),
            table,
            *settled,
            seed,
            step,
            tensor,
            gamma,
            norm,
            _array.threads(),
        )
        if status:
            _native.raise_on("assemble_gradient", "_cpu", status)
        return result

    return launch


def prepare_assemble_gradient_many(parts: list[tuple[View, Draw]]) -> Callable[..., Any]:
    """The cpu launch of many tensors, each a view and a draw."""
    launcher = _native.cpu().assemble_gradient_many
    kind, first = parts[0][0].kind, parts[0][1]
    address, pointer = _array.address_of(kind), _array.pointer_of(kind)
    makers = [_array.maker(view.shape, "float32", kind) for view, _ in parts]
    own = [_settled(view, draw) for view, draw in parts]
    table = max(_native.table(draw.surrogate, draw.noise, "cpu") for _, draw in parts)
    settled = table, _surrogate.noise_number(first.noise), first.probes, first.first_probe

    def launch(
        grads: list[Any], scales: list[Any], differences: Any, outs: Any, seed: int, step: int,
        gamma: float, norm: float,
    ) -> list[Any]:  # fmt: skip
        if outs is None:
            results = [new() for new in makers]
        else:
            results = [new() if out is None else out for new, out in zip(makers, outs, strict=True)]
        kept: list[Any] = [_array.float32(differences)]  # copies must outlive the launch
        rows = [
            (0, address(grad, kept), address(scale, kept), pointer(result), 0, *row)
            for grad, scale, result, row in zip(grads, scales, results, own, strict=True)
        ]
        at = address(kept[0], kept)
        status = launcher(rows, at, *settled, seed, step, gamma, norm, _array.threads())
        if status:
            _native.raise_on("assemble_gradient_many", "_cpu", status)
        return results

    return launch


def assemble_gradient_cuda(out: Any, **call: Any) -> Any:
    with _native.on_cuda(call["grad"].device) as at:
        return _run(at, "assemble_gradient", [call], [out])[0]


def assemble_gradient_many_cuda(calls: list[dict[str, Any]], out: list[Any]) -> list[Any]:
    with _native.on_cuda(calls[0]["grad"].device) as at:
        return _run(at, "assemble_gradient_many", calls, out)


def _run(
    at: _native.Place,
    op: str,
    calls: list[dict[str, Any]],
    outs: list[Any],
) -> list[Any]:
    """One launch for all tensors."""
    first = calls[0]
    results = [
        _array.empty(call["view"].shape, "float32", call["view"].kind, at.device)
        if given is None
        else given
        for call, given in zip(calls, outs, strict=True)
    ]
    kept: list[Any] = []  # copies must outlive the launch
    rows = [_row(*columns, kept) for columns in zip(calls, results, strict=True)]
    differences = _array.float32(first["differences"])
    draw: Draw = first["draw"]
    status = at.module.assemble_gradient_many(
        rows,
        _array.address(differences, kept),
        _native.table_for(calls, at.device),
        _surrogate.noise_number(draw.noise),
        draw.probes,
        draw.first_probe,
        _native.scalars(draw, first["gamma"], first["norm"]),
        at.last,
    )
    _native.raise_on(op, at.name, status)
    return results


def _row(call: dict[str, Any], result: Any, kept: list[Any]) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/tensor.h."""
    return (
        0,
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result),
        0,
        *_settled(call["view"], call["draw"]),
    )


def _settled(view: View, draw: Draw) -> tuple[int, ...]:
    place = draw.offset, draw.row_pitch, draw.tensor
    return *view.sizes, *place, 0, 0, _surrogate.number(draw.surrogate)
