"""The public operations while torch.compile traces them: their arguments for ``torch.ops.fogzo``.

What the registered operations check when they run is not checked again here. Outputs that the
caller gives are copied into; the compiler makes of that what it can.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from .. import _check, _surrogate
from .._types import Flips, Grid, Packed
from . import operations  # registers torch.ops.fogzo

__all__ = ["operations"]
OPS = torch.ops.fogzo


def written(op: str, result: Tensor, out: Tensor | None, name: str = "out") -> Tensor:
    """The result, in the caller's output where one is given."""
    if out is None:
        return result
    if out.shape != result.shape or out.dtype != result.dtype:
        got = f"has shape {tuple(out.shape)} and dtype {out.dtype}"
        _check.fail(op, name, got, f"{tuple(result.shape)} and {result.dtype}")
    return out.copy_(result)


def grid_of(op: str, grid: Grid) -> tuple[str, int | None]:
    if not isinstance(grid, Grid):
        _check.grid(op, grid)
    return grid.kind, grid.bits


def parts_of(codes: Any) -> tuple[Tensor, list[int] | None]:
    """Bytes and unpacked shape of a Packed; a tensor of codes as it is."""
    if isinstance(codes, Packed):
        return codes.data, list(codes.shape)
    return codes, None


def number(op: str, argument: str, value: Any) -> tuple[Any, Tensor | None]:
    """A 64-bit integer as torch has it, signed, or a 0-dim tensor."""
    if isinstance(value, Tensor):
        return 0, value
    if not -(2**63) <= value < 2**64:
        text = "an int of 64 bits or a 0-dim int64 array"
        _check.fail(op, argument, f"is {value!r}", text)
    return value if value < 2**63 else value - 2**64, None


def real(value: Any) -> tuple[float, Tensor | None]:
    return (0.0, value) if isinstance(value, Tensor) else (float(value), None)


def draw(
    op: str,
    surrogate: str,
    seed: Any,
    step: Any,
    tensor: int,
    first_probe: int,
    noise: str,
    offset: int,
    row_pitch: int | None,
) -> tuple[Any, ...]:
    """The arguments of ``operations.DRAW``."""
    seeds, steps = number(op, "seed", seed), number(op, "step", step)
    return surrogate, *seeds, *steps, tensor, first_probe, noise, offset, row_pitch


def compute_scale(
    w: Tensor,
    grid: Grid,
    rule: str = "fixed",
    granularity: str = "channel",
    group_size: int | None = None,
    *,
    out: Tensor | None = None,
) -> Tensor:
    op = "compute_scale"
    scale = OPS.compute_scale(w, *grid_of(op, grid), rule, granularity, group_size)
    return written(op, scale, out)


def quantize(w: Tensor, scale: Tensor, grid: Grid, *, out: Tensor | None = None) -> Tensor:
    return written("quantize", OPS.quantize(w, scale, *grid_of("quantize", grid)), out)


def dequantize(codes: Any, scale: Tensor, grid: Grid, *, out: Tensor | None = None) -> Tensor:
    op = "dequantize"
    data, shape = parts_of(codes)
    return written(op, OPS.dequantize(data, scale, *grid_of(op, grid), shape), out)


def pack(codes: Tensor, bits: int, *, out: Packed | None = None) -> Packed:
    data = written("pack", OPS.pack(codes, bits), None if out is None else out.data, "out.data")
    return Packed(data, 1 << (bits - 1).bit_length(), tuple(codes.shape)) if out is None else out


def unpack(packed: Packed, *, out: Tensor | None = None) -> Tensor:
    return written("unpack", OPS.unpack(packed.data, packed.bits, list(packed.shape)), out)


def fake_quantize(w: Tensor, scale: Tensor, grid: Grid, *, out: Tensor | None = None) -> Tensor:
    op = "fake_quantize"
    return written(op, OPS.fake_quantize(w, scale, *grid_of(op, grid)), out)


def fake_quantize_backward(
    grad: Tensor,
    w: Tensor,
    scale: Tensor,
    grid: Grid,
    surrogate: str | None = None,
    *,
    needs_scale_grad: bool = True,
    limit: float | None = None,
    out: Tensor | None = None,
) -> tuple[Tensor, Tensor | None]:
    op = "fake_quantize_backward"
    kind = grid_of(op, grid)
    name = _surrogate.chosen(surrogate, grid)
    rest = (name, needs_scale_grad, limit)
    grad_w, grad_scale = OPS.fake_quantize_backward(grad, w, scale, *kind, *rest)
    return written(op, grad_w, out), grad_scale if needs_scale_grad else None


def whitened_norm(
    grads: Any, scales: Any, surrogate: Any, *, noise: str = "published", out: Tensor | None = None
) -> Tensor:
    op = "whitened_norm"
    grads = _check.sequence(op, "grads", grads, None)
    surrogates = _check.each(op, "surrogate", surrogate, len(grads), "grads")
    return written(op, OPS.whitened_norm(grads, list(scales), surrogates, noise), out)


def noise(
    shape: Any,
    surrogate: str,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    device: Any = None,
    out: Tensor | None = None,
) -> Tensor:
    where = draw("noise", surrogate, seed, step, tensor, probe, noise, offset, row_pitch)
    on = torch.device("cpu" if device is None else device) if out is None else out.device
    return written("noise", OPS.noise(list(shape), *where, on), out)


def perturb_quantize(
    w: Tensor,
    grad: Tensor,
    scale: Tensor,
    grid: Grid | None,
    surrogate: str | None = None,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    probes: int = 1,
    gamma: Any,
    norm: Any,
    form: str = "values",
    sides: str = "both",
    first_probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    flip_count: Tensor | None = None,
    out: Any = None,
) -> Any:
    op = "perturb_quantize"
    _check.choice(op, "form", form, ("values", "codes", "packed", "flips"))
    kind = (None, None) if grid is None else grid_of(op, grid)
    name = _surrogate.chosen(surrogate, grid)
    where = draw(op, name, seed, step, tensor, first_probe, noise, offset, row_pitch)
    args = (w, grad, scale, *kind, *where, *real(gamma), *real(norm), probes, sides)
    if form == "flips":
        return flips(op, args, flip_count, out)
    result, counts = OPS.perturb_quantize(*args, form, flip_count is not None)
    if flip_count is not None:
        written(op, counts, flip_count, "flip_count")
    return sides_of(op, result, w, grid, form, out)


def sides_of(op: str, result: Tensor, w: Tensor, grid: Grid | None, form: str, out: Any) -> Any:
    """All sides of a weight, as bytes for form "packed", in the form that was asked for."""
    if form != "packed" or grid is None:
        return written(op, result, out)
    if out is not None:
        written(op, result, out.data, "out.data")
        return out
    return Packed(result, grid.storage_bits, (result.shape[0], *w.shape))


def flips(op: str, args: tuple[Any, ...], flip_count: Tensor | None, out: Any) -> Flips:
    """A Flips of its own: how many flips there are is known only when it runs."""
    if out is not None:
        _check.fail(op, "out", "is given with form 'flips' under torch.compile", "None")
    base, index, code, count = OPS.perturb_quantize_flips(*args)
    if flip_count is not None:
        written(op, count.clone(), flip_count, "flip_count")
    return Flips(base, index, code, count)


def each_of(
    op: str, n: int, like: str, surrogates: Any, tensors: Any, offsets: Any, row_pitches: Any
) -> tuple[list[Any], ...]:
    """The arguments of ``operations.EACH``."""
    pitches = _check.each(op, "row_pitches", row_pitches, n, like)
    return (
        _check.each(op, "surrogates", surrogates, n, like),
        _check.sequence(op, "tensors", tensors, n, like),
        _check.each(op, "offsets", offsets, n, like),
        [-1 if pitch is None else pitch for pitch in pitches],
    )


def shared_of(
    op: str, seed: Any, step: Any, gamma: Any, norm: Any, first_probe: int = 0,
    noise: str = "published",
) -> tuple[Any, ...]:  # fmt: skip
    """The arguments of ``operations.SHARED``."""
    seeds, steps = number(op, "seed", seed), number(op, "step", step)
    return *seeds, *steps, first_probe, noise, *real(gamma), *real(norm)


def perturb_quantize_many(
    ws: Any,
    grads: Any,
    scales: Any,
    grids: Any,
    surrogates: Any = None,
    *,
    tensors: Any,
    probes: int = 1,
    form: str = "values",
    sides: str = "both",
    offsets: Any = 0,
    row_pitches: Any = None,
    flip_counts: Any = None,
    outs: Any = None,
    **shared: Any,
) -> list[Any]:
    op = "perturb_quantize_many"
    ws = _check.sequence(op, "ws", ws, None)
    n = len(ws)
    arrays = (
        ws,
        _check.sequence(op, "grads", grads, n, "ws"),
        _check.sequence(op, "scales", scales, n, "ws"),
    )
    _check.choice(op, "form", form, ("values", "codes", "packed", "flips"))
    grids = _check.each(op, "grids", grids, n, "ws")
    kinds = [("", 0) if grid is None else grid_of(op, grid) for grid in grids]
    surrogates = _check.each(op, "surrogates", surrogates, n, "ws")
    names = [_surrogate.chosen(*pair) for pair in zip(surrogates, grids, strict=True)]
    args = (
        *arrays,
        [kind for kind, _ in kinds],
        [bits or 0 for _, bits in kinds],
        *each_of(op, n, "ws", names, tensors, offsets, row_pitches),
        *shared_of(op, **shared),
        probes,
        sides,
    )
    outs = _check.each(op, "outs", outs, n, "ws")
    if form == "flips":
        return flips_of_many(op, args, flip_counts, outs)
    results, counts = OPS.perturb_quantize_many(*args, form, flip_counts is not None)
    if flip_counts is not None:
        written(op, counts, flip_counts, "flip_counts")
    rows = zip(results, ws, grids, outs, strict=True)
    return [sides_of(op, result, w, grid, form, out) for result, w, grid, out in rows]


def flips_of_many(
    op: str, args: tuple[Any, ...], flip_counts: Tensor | None, outs: list[Any]
) -> list[Flips]:
    if any(out is not None for out in outs):
        _check.fail(op, "outs", "is given with form 'flips' under torch.compile", "None")
    columns = OPS.perturb_quantize_many_flips(*args)
    if flip_counts is not None:
        written(op, torch.stack(columns[3]), flip_counts, "flip_counts")
    return [Flips(*parts) for parts in zip(*columns, strict=True)]


def probe_matmul(
    x: Tensor,
    codes: Any,
    scale: Tensor,
    grid: Grid,
    bias: Tensor | None = None,
    *,
    x_scale: Tensor | None = None,
    out: Tensor | None = None,
) -> Tensor:
    op = "probe_matmul"
    rest = (scale, *grid_of(op, grid), bias, x_scale)
    if isinstance(codes, Flips):
        parts = (codes.base, codes.index, codes.code, codes.count)
        return written(op, OPS.probe_matmul_flips(x, *parts, *rest), out)
    data, shape = parts_of(codes)
    return written(op, OPS.probe_matmul(x, data, *rest, shape), out)


def assemble_gradient(
    grad: Tensor,
    scale: Tensor,
    differences: Tensor,
    surrogate: str,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    gamma: Any,
    norm: Any,
    first_probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    out: Tensor | None = None,
) -> Tensor:
    op = "assemble_gradient"
    where = draw(op, surrogate, seed, step, tensor, first_probe, noise, offset, row_pitch)
    args = (grad, scale, differences, *where, *real(gamma), *real(norm))
    return written(op, OPS.assemble_gradient(*args), out)


def assemble_gradient_many(
    grads: Any,
    scales: Any,
    differences: Tensor,
    surrogates: Any,
    *,
    tensors: Any,
    offsets: Any = 0,
    row_pitches: Any = None,
    outs: Any = None,
    **shared: Any,
) -> list[Tensor]:
    op = "assemble_gradient_many"
    grads = _check.sequence(op, "grads", grads, None)
    n = len(grads)
    scales = _check.sequence(op, "scales", scales, n, "grads")
    each = each_of(op, n, "grads", surrogates, tensors, offsets, row_pitches)
    gs = OPS.assemble_gradient_many(grads, scales, differences, *each, *shared_of(op, **shared))
    outs = _check.each(op, "outs", outs, n, "grads")
    return [written(op, g, out) for g, out in zip(gs, outs, strict=True)]


def hadamard(x: Tensor, block: int = 128, *, out: Tensor | None = None) -> Tensor:
    return written("hadamard", OPS.hadamard(x, block), out)


def hadamard_quantize(
    w: Tensor, grid: Grid, form: str = "values", *, out: Any = None
) -> tuple[Tensor, Tensor]:
    op = "hadamard_quantize"
    _check.choice(op, "form", form, ("values", "codes"))
    return written_pair(op, OPS.hadamard_quantize(w, *grid_of(op, grid), form), out)


def quantize_activation(x: Tensor, bits: int = 8, *, out: Any = None) -> tuple[Tensor, Tensor]:
    op = "quantize_activation"
    return written_pair(op, OPS.quantize_activation(x, bits), out)


def written_pair(op: str, results: tuple[Tensor, Tensor], out: Any) -> tuple[Tensor, Tensor]:
    first, second = (None, None) if out is None else out
    return written(op, results[0], first, "out[0]"), written(op, results[1], second, "out[1]")
