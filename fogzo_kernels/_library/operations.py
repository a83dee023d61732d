"""Registration of ``torch.ops.fogzo``: schemas of plain tensors, numbers and names, and kernels.

A Grid is its kind and bits, a Packed its bytes, width and shape, a Flips its four tensors. No
operation writes an argument or returns a view of one. None has a gradient: results do not require
one, as in eager mode.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from .._types import Flips, Grid, Packed
from . import fakes

LIBRARY = torch.library.Library("fogzo", "DEF")
GRID = "str grid, int? bits"
DRAW = (
    "str surrogate, SymInt seed, Tensor? seed_array, SymInt step, Tensor? step_array, "
    "SymInt tensor, SymInt first_probe, str noise, SymInt offset, SymInt? row_pitch"
)
GUIDE = "float gamma, Tensor? gamma_array, float norm, Tensor? norm_array"

grid_of = functools.cache(Grid)


def operation(arguments: str, results: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Register a function as ``fogzo::<its name>``, its fake beside it in ``fakes``."""

    def register(function: Callable[..., Any]) -> Callable[..., Any]:
        name = function.__name__
        LIBRARY.define(f"{name}({arguments}) -> {results}")
        LIBRARY.impl(name, function, "CompositeExplicitAutograd")
        LIBRARY.impl(name, torch.library.fallthrough_kernel, "Autograd")
        torch.library.register_fake(f"fogzo::{name}", getattr(fakes, name), lib=LIBRARY)
        return function

    return register


def either(number: Any, array: Tensor | None) -> Any:
    return number if array is None else array


@operation(
    f"Tensor w, {GRID}, str rule, str granularity, SymInt? group_size",
    "Tensor",
)
def compute_scale(w: Tensor, grid: str, bits: int | None, *rule: Any) -> Tensor:
    scale: Tensor = fk.compute_scale(w, grid_of(grid, bits), *rule)
    return scale


@operation(f"Tensor w, Tensor scale, {GRID}", "Tensor")
def quantize(w: Tensor, scale: Tensor, grid: str, bits: int | None) -> Tensor:
    codes: Tensor = fk.quantize(w, scale, grid_of(grid, bits))
    return codes


@operation(f"Tensor codes, Tensor scale, {GRID}, SymInt[]? packed_shape", "Tensor")
def dequantize(
    codes: Tensor, scale: Tensor, grid: str, bits: int | None, packed_shape: list[int] | None
) -> Tensor:
    of = grid_of(grid, bits)
    values: Tensor = fk.dequantize(codes_of(codes, packed_shape, of), scale, of)
    return values


def codes_of(data: Tensor, packed_shape: list[int] | None, grid: Grid) -> Tensor | Packed:
    if packed_shape is None:
        return data
    return Packed(data, grid.storage_bits, tuple(packed_shape))


@operation("Tensor codes, int bits", "Tensor")
def pack(codes: Tensor, bits: int) -> Tensor:
    data: Tensor = fk.pack(codes, bits).data
    return data


@operation("Tensor data, int bits, SymInt[] shape", "Tensor")
def unpack(data: Tensor, bits: int, shape: list[int]) -> Tensor:
    codes: Tensor = fk.unpack(Packed(data, bits, tuple(shape)))
    return codes


@operation(f"Tensor w, Tensor scale, {GRID}", "Tensor")
def fake_quantize(w: Tensor, scale: Tensor, grid: str, bits: int | None) -> Tensor:
    values: Tensor = fk.fake_quantize(w, scale, grid_of(grid, bits))
    return values


@operation(
    f"Tensor grad, Tensor w, Tensor scale, {GRID}, str surrogate, bool needs_scale_grad, "
    "float? limit=None",
    "(Tensor grad_w, Tensor grad_scale)",
)
def fake_quantize_backward(
    grad: Tensor,
    w: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    surrogate: str,
    needs_scale_grad: bool,
    limit: float | None = None,
) -> tuple[Tensor, Tensor]:
    """grad_scale is empty, [0], where it is not needed."""
    kind = grid_of(grid, bits)
    grad_w, grad_scale = fk.fake_quantize_backward(
        grad, w, scale, kind, surrogate, needs_scale_grad=needs_scale_grad, limit=limit
    )
    return grad_w, scale.new_empty(0) if grad_scale is None else grad_scale


@operation("Tensor[] grads, Tensor[] scales, str[] surrogates, str noise", "Tensor")
def whitened_norm(
    grads: list[Tensor], scales: list[Tensor], surrogates: list[str], noise: str
) -> Tensor:
    norm: Tensor = fk.whitened_norm(grads, scales, surrogates, noise=noise)
    return norm


@operation(f"SymInt[] shape, {DRAW}, Device device", "Tensor")
def noise(shape: list[int], *coordinates: Any) -> Tensor:
    *coordinates_, device = coordinates
    surrogate, where = draw_of(*coordinates_)
    where["probe"] = where.pop("first_probe")
    u: Tensor = fk.noise(tuple(shape), surrogate, device=device, **where)
    return u


def draw_of(
    surrogate: str,
    seed: int,
    seed_array: Tensor | None,
    step: int,
    step_array: Tensor | None,
    tensor: int,
    first_probe: int,
    noise: str,
    offset: int,
    row_pitch: int | None,
) -> tuple[str, dict[str, Any]]:
    """DRAW's arguments as a surrogate and the named arguments of a public operation."""
    return surrogate, {
        "seed": either(seed, seed_array),
        "step": either(step, step_array),
        "tensor": tensor,
        "first_probe": first_probe,
        "noise": noise,
        "offset": offset,
        "row_pitch": row_pitch,
    }


def guide_of(
    gamma: float, gamma_array: Tensor | None, norm: float, norm_array: Tensor | None
) -> dict[str, Any]:
    return {"gamma": either(gamma, gamma_array), "norm": either(norm, norm_array)}


DRAW_SIZE, GUIDE_SIZE = DRAW.count(",") + 1, GUIDE.count(",") + 1
PERTURB = f"Tensor w, Tensor grad, Tensor scale, str? grid, int? bits, {DRAW}, {GUIDE}, SymInt probes, str sides"  # noqa: E501


def perturb(
    w: Tensor,
    grad: Tensor,
    scale: Tensor,
    grid: str | None,
    bits: int | None,
    *rest: Any,
    form: str,
    flip_count: Tensor | None = None,
) -> Any:
    surrogate, where = draw_of(*rest[:DRAW_SIZE])
    guide = guide_of(*rest[DRAW_SIZE : DRAW_SIZE + GUIDE_SIZE])
    probes, sides = rest[DRAW_SIZE + GUIDE_SIZE :]
    of = None if grid is None else grid_of(grid, bits)
    return fk.perturb_quantize(
        w, grad, scale, of, surrogate, **where, **guide, probes=probes, sides=sides, form=form,
        flip_count=flip_count,
    )  # fmt: skip


@operation(f"{PERTURB}, str form, bool count_flips", "(Tensor result, Tensor flip_count)")
def perturb_quantize(*args: Any) -> tuple[Tensor, Tensor]:
    """flip_count is empty, [0], where it is not asked for."""
    *rest, probes, sides, form, count_flips = args
    size = probes * (2 if sides == "both" else 1) if count_flips else 0
    counts = args[0].new_empty(size, dtype=torch.int64)
    wanted = counts if count_flips else None
    result = perturb(*rest, probes, sides, form=form, flip_count=wanted)
    return result.data if isinstance(result, Packed) else result, counts


@operation(PERTURB, "(Tensor base, Tensor index, Tensor code, Tensor count)")
def perturb_quantize_flips(*args: Any) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    flips = perturb(*args, form="flips")
    return flips.base, flips.index, flips.code, flips.count


MATMUL = f"Tensor scale, {GRID}, Tensor? bias, Tensor? x_scale"


@operation(f"Tensor x, Tensor codes, {MATMUL}, SymInt[]? packed_shape", "Tensor")
def probe_matmul(
    x: Tensor,
    codes: Tensor,
    scale: Tensor,
    grid: str,
    bits: int | None,
    bias: Tensor | None,
    x_scale: Tensor | None,
    packed_shape: list[int] | None,
) -> Tensor:
    of = grid_of(grid, bits)
    sides = codes_of(codes, packed_shape, of)
    y: Tensor = fk.probe_matmul(x, sides, scale, of, bias, x_scale=x_scale)
    return y


@operation(f"Tensor x, Tensor base, Tensor index, Tensor code, Tensor count, {MATMUL}", "Tensor")
def probe_matmul_flips(x: Tensor, *args: Any) -> Tensor:
    *flips, scale, grid, bits, bias, x_scale = args
    of = grid_of(grid, bits)
    y: Tensor = fk.probe_matmul(x, Flips(*flips), scale, of, bias, x_scale=x_scale)
    return y


@operation(f"Tensor grad, Tensor scale, Tensor differences, {DRAW}, {GUIDE}", "Tensor")
def assemble_gradient(grad: Tensor, scale: Tensor, differences: Tensor, *rest: Any) -> Tensor:
    surrogate, where = draw_of(*rest[:DRAW_SIZE])
    guide = guide_of(*rest[DRAW_SIZE:])
    g: Tensor = fk.assemble_gradient(grad, scale, differences, surrogate, **where, **guide)
    return g


@operation("Tensor x, int block", "Tensor")
def hadamard(x: Tensor, block: int) -> Tensor:
    rotated: Tensor = fk.hadamard(x, block)
    return rotated


@operation("Tensor x, int bits", "(Tensor codes, Tensor x_scale)")
def quantize_activation(x: Tensor, bits: int) -> tuple[Tensor, Tensor]:
    result: tuple[Tensor, Tensor] = fk.quantize_activation(x, bits)
    return result
