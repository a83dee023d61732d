"""The form "flips" of the native backends, out of the codes of all sides."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .. import _array, _check, _native
from .._check import View
from .._types import Flips


def prepare_flips(
    codes_of: Callable[..., Any], view: View, grid: Any, shape: tuple[int, ...]
) -> Callable[..., Any]:
    """The cpu launch of one tensor, by the launch that makes and counts its codes."""
    new = _array.maker(shape[:1], "int64", view.kind)

    def launch(w: Any, grad: Any, scale: Any, out: Any, count: Any, *scalars: Any) -> Flips:
        counts = new() if count is None else count
        codes = codes_of(w, grad, scale, None, counts, *scalars)
        call = {"w": w, "scale": scale, "view": view, "grid": grid}
        own = counts if count is None else None
        return find_flips(_native.on_cpu(), call, codes, counts.tolist(), out, own)

    return launch


def find_flips(
    at: _native.Place,
    call: dict[str, Any],
    codes: Any,
    counts: list[int] | None,
    given: Flips | None,
    count: Any = None,
) -> Flips:
    """The codes of w, and where those of each side differ.

    counts: how many do, where known. count: an array for the result's, where nothing is given.
    """
    view: View = call["view"]
    most = max(counts or [0])
    room = most if given is None else given.index.shape[1]
    if most > room and (given is None or view.device == "cpu"):
        _check.fail("perturb_quantize", "out", f"has room for {room} flips", f"{most}")
    sides, elements = codes.shape[0], view.rows * view.cols
    result = given or Flips(
        _array.empty(view.shape, "uint8", view.kind, at.device),
        _array.empty((sides, room), "int64", view.kind, at.device),
        _array.empty((sides, room), "uint8", view.kind, at.device),
        _array.empty((sides,), "int64", view.kind, at.device) if count is None else count,
    )
    base = _array.pointer(result.base)
    _quantize(at, call, base)
    workspace: tuple[int, ...] = ()
    if at.name == "_cuda":
        size = at.module.find_flips_workspace(sides, elements)
        parts = _native.workspace(at, size)
        workspace = (_array.pointer(parts), size)
    status = at.module.find_flips(
        base,
        _array.pointer(codes),
        _array.pointer(result.index),
        _array.pointer(result.code),
        _array.pointer(result.count),
        *workspace,
        sides,
        elements,
        room,
        at.last,
    )
    _native.raise_on("perturb_quantize", at.name, status)
    return result


def _quantize(at: _native.Place, call: dict[str, Any], base: int) -> None:
    """The codes of w to an address."""
    kept: list[Any] = []  # copies must outlive the launch
    view, grid = call["view"], call["grid"]
    status = at.module.quantize(
        _array.address(call["w"], kept),
        _array.address(call["scale"], kept),
        base,
        *view.sizes,
        grid.number,
        grid.code_bits,
        at.last,
    )
    _native.raise_on("perturb_quantize", at.name, status)
