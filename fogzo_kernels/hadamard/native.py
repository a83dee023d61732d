"""Native backends of hadamard: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _native
from .._check import View


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_hadamard(view: View, block: int) -> Callable[..., Any]:
    """The cpu launch of rows of one length."""
    new = _array.maker(view.shape, "float32", view.kind)
    settled = prod(view.shape[:-1]), view.shape[-1], block
    return _native.one_output("hadamard", view.kind, new, *settled)


def hadamard_cuda(x: Any, block: int, out: Any) -> Any:
    shape = tuple(x.shape)
    settled = prod(shape[:-1]), shape[-1], block
    return _native.one_output_cuda("hadamard", out, shape, "float32", (x,), *settled)
