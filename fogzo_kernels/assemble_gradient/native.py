"""Native backends of assemble_gradient: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _native, _surrogate
from .._check import Draw, View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare(view: View, draw: Draw) -> Callable[..., Any]:
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

    def launch(
        grad: Any, scale: Any, differences: Any, out: Any, seed: int, step: int, gamma: float,
        norm: float,
    ) -> Any:  # fmt: skip
        result = new() if out is None else out
        kept: list[Any] = [_array.float32(differences)]  # copies must outlive the launch
        status = launcher(
            _array.address(grad, kept),
            _array.address(scale, kept),
            _array.address(kept[0], kept),
            _array.pointer(result),
            table,
            *settled,
            seed,
            step,
            tensor,
            gamma,
            norm,
            _array.threads(),
        )
        _native.raise_on("assemble_gradient", "_cpu", status)
        return result

    return launch


def assemble_gradient_cpu(out: Any, **call: Any) -> Any:
    return _run(_native.on_cpu(), "assemble_gradient", [call], [{}], [out])[0]


def assemble_gradient_cuda(out: Any, **call: Any) -> Any:
    with _native.on_cuda(call["grad"].device) as at:
        return _run(at, "assemble_gradient", [call], [{}], [out])[0]


def assemble_gradient_many_cpu(calls: list[dict[str, Any]], made: Any, out: list[Any]) -> list[Any]:
    return _run(_native.on_cpu(), "assemble_gradient_many", calls, made, out)


def assemble_gradient_many_cuda(
    calls: list[dict[str, Any]], made: Any, out: list[Any]
) -> list[Any]:
    with _native.on_cuda(calls[0]["grad"].device) as at:
        return _run(at, "assemble_gradient_many", calls, made, out)


def _run(
    at: _native.Place,
    op: str,
    calls: list[dict[str, Any]],
    made: list[dict[str, Any]],
    outs: list[Any],
) -> list[Any]:
    """One launch for all tensors; made: what is kept for other calls of the same plans."""
    first = calls[0]
    results = [
        _array.empty(call["view"].shape, "float32", call["view"].kind, at.device)
        if given is None
        else given
        for call, given in zip(calls, outs, strict=True)
    ]
    kept: list[Any] = []  # copies must outlive the launch
    rows = [_row(*columns, kept) for columns in zip(calls, made, results, strict=True)]
    differences = _array.float32(first["differences"])
    draw: Draw = first["draw"]
    scalars: tuple[Any, ...] = (draw.seed, draw.step, first["gamma"], first["norm"])
    if at.name == "_cuda":
        scalars = (_native.scalars(draw, first["gamma"], first["norm"]),)
    status = at.module.assemble_gradient_many(
        rows,
        _array.address(differences, kept),
        _native.table_for(calls, at.device),
        _surrogate.noise_number(draw.noise),
        draw.probes,
        draw.first_probe,
        *scalars,
        at.last,
    )
    _native.raise_on(op, at.name, status)
    return results


def _row(
    call: dict[str, Any], made: dict[str, Any], result: Any, kept: list[Any]
) -> tuple[int, ...]:
    """The members of fogzo_tensor, csrc/include/fogzo/tensor.h."""
    settled = made.get("row")
    if settled is None:
        settled = made["row"] = _settled(call["view"], call["draw"])
    return (
        0,
        _array.address(call["grad"], kept),
        _array.address(call["scale"], kept),
        _array.pointer(result),
        0,
        *settled,
    )


def _settled(view: View, draw: Draw) -> tuple[int, ...]:
    place = draw.offset, draw.row_pitch, draw.tensor
    return *view.sizes, *place, 0, 0, _surrogate.number(draw.surrogate)
