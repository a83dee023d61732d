"""Native cpu backend of compute_scale."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _native
from .._check import View
from .._scale import rule_of
from .._types import Grid


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None if backend == "cpu" else f"{op} has no {backend} kernel"


def prepare_compute_scale(
    view: View, grid: Grid, rule: str, shape: tuple[int, ...]
) -> Callable[..., Any]:
    """The cpu launch of one weight; shape: of its scale."""
    new = _array.maker(shape, "float32", view.kind)
    scales = prod(shape)
    settled = scales, view.rows * view.cols // scales, *rule_of(grid, rule)
    return _native.one_output("compute_scale", view.kind, new, *settled)
