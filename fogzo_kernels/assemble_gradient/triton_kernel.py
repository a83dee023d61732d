"""Triton kernel of assemble_gradient: one read of grad, every direction made again."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _launch
from .._triton import table as tables
from .._triton import tiles
from .._triton.philox import key_of, step_of
from .._triton.probe import direction, gamma_factors, norm_of


@triton.jit(do_not_specialize=["seed", "step", "first_probe", "probes", "c1", "b", "norm"])
def assemble_gradient_kernel(
    table,
    differences,
    seed: tl.int64,
    seed_at,
    step: tl.int64,
    step_at,
    first_probe: tl.int64,
    probes: tl.int32,
    c1: tl.float32,
    b: tl.float32,
    gamma_at,
    norm: tl.float32,
    norm_at,
    atanh,
    SURROGATE: tl.constexpr,
    NOISE: tl.constexpr,
    RADIUS: tl.constexpr,
    RUN: tl.constexpr,
    ALIGNED: tl.constexpr,
    STEPS: tl.constexpr,
    TILES: tl.constexpr,
):
    """G = (D_0 d_0 + D_1 d_1 + ...) * (1 / (n ((e e) a)))."""
    program = tl.program_id(0).to(tl.int64)
    lanes: tl.constexpr = 128 * TILES
    row = tiles.find_row(table, program, STEPS)
    tile, lead, low, high = tiles.place(row, program, TILES, ALIGNED)
    ahead = tiles.steps_in(lanes, 1)  # [8, lanes]
    inside = (ahead >= low) & (ahead < high)
    grad_at = tiles.array_at(row, tiles.GRAD, tl.float32, ALIGNED) + lead
    grad = tl.load(grad_at + ahead, inside, other=0.0)
    a = tiles.load_scales(row, lead, tiles.steps_in(lanes, RUN), low, high, RUN)
    e = tl.full((), RADIUS, tl.float32)
    gw = grad * tiles.spread_runs(a * e, RUN)
    divisor = probes.to(tl.float32) * ((e * e) * a)
    tensor = tl.load(row + tiles.TENSOR).to(tl.uint32)
    key0, key1 = key_of(seed, seed_at)
    step_word = step_of(step, step_at)
    c1, b = gamma_factors(c1, b, gamma_at, RADIUS)
    norm = norm_of(norm, norm_at)
    d = direction(
        key0, key1, tile, first_probe, step_word, tensor, gw, c1, b, norm, atanh,
        SURROGATE, NOISE, RADIUS,
    )  # fmt: skip
    total = tl.load(differences) * d
    for i in range(1, probes):
        d = direction(
            key0, key1, tile, first_probe + i, step_word, tensor, gw, c1, b, norm, atanh,
            SURROGATE, NOISE, RADIUS,
        )  # fmt: skip
        total = total + tl.load(differences + i) * d
    factor = tiles.spread_runs(tl.div_rn(divisor * 0.0 + 1.0, divisor), RUN)
    out_at = tiles.array_at(row, tiles.OUT, tl.float32, ALIGNED) + lead
    tl.store(out_at + ahead, total * factor, inside)


def _case(name: str, **constexprs: Any) -> _launch.Case:
    types = {"table": "*i64", "differences": "*fp32", "seed_at": "*i64", "step_at": "*i64"}
    types |= {"gamma_at": "*fp64", "norm_at": "*fp32", "seed": "i64", "step": "i64"}
    types |= {"first_probe": "i64", "probes": "i32", "c1": "fp32", "b": "fp32", "norm": "fp32"}
    usual: dict[str, Any] = {"SURROGATE": 1, "NOISE": 0, "RADIUS": 0.2886751345948129, "RUN": 128}
    usual |= {"ALIGNED": True, "STEPS": 8, "atanh": None}
    return _launch.Case(name, types, {**usual, **constexprs})


KERNELS = (
    _launch.Kernel(
        "assemble_gradient",
        assemble_gradient_kernel,
        (_case("clipped"), _case("rademacher", NOISE=1, RADIUS=0.5), _case("tensor", RUN=0)),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def assemble_gradient(out: Any, **call: Any) -> Any:
    return assemble_gradient_many([call], [out])[0]


def assemble_gradient_many(calls: list[dict[str, Any]], out: list[Any]) -> list[Any]:
    """One launch for all tensors of one surrogate and kind of scale."""
    (kernel,) = KERNELS
    first = calls[0]
    draw, device = first["draw"], first["grad"].device
    differences = _array.contiguous(first["differences"].float())
    per_program = kernel.pick(device).blocks["TILES"]
    kept: list[Any] = []  # copies must outlive the launch
    results, some = [], []
    for call, given in zip(calls, out, strict=True):
        view, result = call["view"], given
        if given is None:
            result = torch.empty(view.shape, dtype=torch.float32, device=device)
        results.append(result)
        if 0 not in view.shape:
            grad, scale = _array.contiguous(call["grad"]), _array.contiguous(call["scale"])
            kept += (grad, scale)
            arrays = {"grad": grad, "scale": scale, "out": result}
            row = tables.row(view, call["draw"], per_program, **arrays)
            some.append((row, tables.noise_of(call["draw"], device)))
    for rows, needs in tables.launches(some):
        table, steps, programs = tables.device_table(rows, device)
        kernel.launch(
            device,
            programs,
            table=table,
            differences=differences,
            **tables.coordinates(draw),
            first_probe=draw.first_probe,
            probes=draw.probes,
            **tables.estimator(needs["RADIUS"], first["gamma"], first["norm"]),
            STEPS=steps,
            **needs,
        )
    return results
