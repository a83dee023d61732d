"""The form "flips" of the native backends, out of the codes of all sides."""

from __future__ import annotations

from math import prod
from typing import Any

from .. import _array, _check, _native
from .._check import View
from .._types import Flips


def find_flips(
    at: _native.Place,
    call: dict[str, Any],
    codes: Any,
    counts: list[int] | None,
    given: Flips | None,
) -> Flips:
    """The codes of w, and where those of each side differ; counts: how many do, where known."""
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
