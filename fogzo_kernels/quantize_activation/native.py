"""Native backends of quantize_activation: cpu and cuda."""

from __future__ import annotations

from collections.abc import Callable
from math import prod
from typing import Any

from .. import _array, _native
from .._check import View

X_TYPES = {"float32": 0, "bfloat16": 1}  # of csrc/include/fogzo/cuda.h


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def prepare_quantize_activation(view: View, bits: int) -> Callable[..., Any]:
    """The cpu launch of rows of one length."""
    launcher, shape = _native.cpu().quantize_activation, view.shape
    address, pointer = _array.address_of(view.kind), _array.pointer_of(view.kind)
    new_codes = _array.maker(shape, "int8", view.kind)
    new_scale = _array.maker(shape[:-1], "float32", view.kind)
    settled = prod(shape[:-1]), shape[-1], bits

    def launch(x: Any, codes: Any, x_scale: Any) -> tuple[Any, Any]:
        kept: list[Any] = [_array.float32(x)]  # copies must outlive the launch
        codes = new_codes() if codes is None else codes
        x_scale = new_scale() if x_scale is None else x_scale
        status = launcher(
            address(kept[0], kept), pointer(codes), pointer(x_scale), *settled, _array.threads()
        )
        if status:
            _native.raise_on("quantize_activation", "_cpu", status)
        return codes, x_scale

    return launch


def quantize_activation_cuda(x: Any, bits: int, out: Any) -> tuple[Any, Any]:
    kept: list[Any] = []  # copies must outlive the launch
    shape = tuple(x.shape)
    with _native.on_cuda(x.device) as at:
        codes, x_scale = out or (
            _array.empty(shape, "int8", "torch", at.device),
            _array.empty(shape[:-1], "float32", "torch", at.device),
        )
        status = at.module.quantize_activation(
            _array.address(x, kept),
            _array.pointer(codes),
            _array.pointer(x_scale),
            prod(shape[:-1]),
            shape[-1],
            bits,
            X_TYPES[_array.dtype_name(x)],
            at.last,
        )
        _native.raise_on("quantize_activation", at.name, status)
    return codes, x_scale
