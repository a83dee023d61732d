"""Triton kernel of noise."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _launch
from .._check import Draw, View
from .._triton import table as tables
from .._triton import tiles
from .._triton.noise import scaled_noise
from .._triton.philox import key_of, step_of


@triton.jit(do_not_specialize=["seed", "step", "probe"])
def noise_kernel(
    table,
    seed: tl.int64,
    seed_at,
    step: tl.int64,
    step_at,
    probe: tl.int64,
    atanh,
    SURROGATE: tl.constexpr,
    NOISE: tl.constexpr,
    RADIUS: tl.constexpr,
    ALIGNED: tl.constexpr,
    TILES: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    lanes: tl.constexpr = 128 * TILES
    tile, lead, low, high = tiles.place(table, program, TILES, ALIGNED)
    key0, key1 = key_of(seed, seed_at)
    step_word = step_of(step, step_at)
    tensor = tl.load(table + tiles.TENSOR).to(tl.uint32)
    probe_word = probe.to(tl.uint32)
    eu = scaled_noise(
        key0, key1, tile, probe_word, step_word, tensor, atanh, SURROGATE, NOISE, RADIUS, lanes
    )
    ahead = tiles.steps_in(lanes, 1)  # [8, lanes]
    out = tiles.array_at(table, tiles.OUT, tl.float32, ALIGNED) + lead
    u = tl.div_rn(eu, tl.full(eu.shape, RADIUS, tl.float32))
    tl.store(out + ahead, u, (ahead >= low) & (ahead < high))


_TYPES = {"table": "*i64", "seed": "i64", "step": "i64", "probe": "i64"}
_HOST = {"seed_at": None, "step_at": None, "atanh": None, "ALIGNED": True}
_CLIPPED = {"SURROGATE": 1, "NOISE": 0, "RADIUS": 0.2886751345948129}
_BITS = {"SURROGATE": 2, "NOISE": 1, "RADIUS": 1.0}
KERNELS = (
    _launch.Kernel(
        "noise",
        noise_kernel,
        (
            _launch.Case("clipped", _TYPES, {**_HOST, **_CLIPPED}),
            _launch.Case("rademacher", _TYPES, {**_HOST, **_BITS}),
        ),
    ),
)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def noise(draw: Draw, device: Any, view: View, out: Any) -> Any:
    if out is None:
        out = torch.empty(view.shape, dtype=torch.float32, device=device)
    if 0 in view.shape:
        return out
    (kernel,) = KERNELS
    row = tables.row(view, draw, kernel.pick(out.device).blocks["TILES"], out=out)
    table, _, programs = tables.device_table([row], out.device)
    kernel.launch(
        out.device,
        programs,
        table=table,
        **tables.coordinates(draw),
        probe=draw.first_probe,
        **tables.noise_of(draw, out.device),
        ALIGNED=tables.aligned([row]),
    )
    return out
