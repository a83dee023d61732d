"""Triton kernels of perturb_quantize: one read of w and grad for the outputs of every probe."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl

from .. import _array, _check, _launch
from .._triton import table as tables
from .._triton import tiles
from .._triton.grid import NO_GRID, code_of, value_of
from .._triton.pack import pack_last, pack_rows
from .._triton.philox import key_of, step_of
from .._triton.probe import direction, gamma_factors, norm_of
from .._types import Packed
from .triton_flips import COUNT, FIND, find_flips

VALUES, CODES, PACKED = tl.constexpr(0), tl.constexpr(1), tl.constexpr(2)
FORMS = {"values": VALUES.value, "codes": CODES.value, "packed": PACKED.value}


@triton.jit(do_not_specialize=["seed", "step", "first_probe", "probes", "c1", "b", "norm"])
def perturb_quantize_kernel(
    table,
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
    KIND: tl.constexpr,
    BITS: tl.constexpr,
    SURROGATE: tl.constexpr,
    NOISE: tl.constexpr,
    RADIUS: tl.constexpr,
    FORM: tl.constexpr,
    SIDES: tl.constexpr,
    WITH_BASE: tl.constexpr,  # store the codes of w
    WITH_COUNT: tl.constexpr,  # count the codes that differ from those of w
    STORED: tl.constexpr,  # bits of a packed code
    RUN: tl.constexpr,
    ALIGNED: tl.constexpr,
    STEPS: tl.constexpr,
    TILES: tl.constexpr,
):
    program = tl.program_id(0).to(tl.int64)
    lanes: tl.constexpr = 128 * TILES
    per_byte: tl.constexpr = 8 // STORED
    row = tiles.find_row(table, program, STEPS)
    tile, lead, low, high = tiles.place(row, program, TILES, ALIGNED)
    ahead = tiles.steps_in(lanes, 1)  # [8, lanes]
    inside = (ahead >= low) & (ahead < high)
    w_at = tiles.array_at(row, tiles.W, tl.float32, ALIGNED) + lead
    grad_at = tiles.array_at(row, tiles.GRAD, tl.float32, ALIGNED) + lead
    w = tl.load(w_at + ahead, inside, other=0.0)
    grad = tl.load(grad_at + ahead, inside, other=0.0)
    a = tiles.load_scales(row, lead, tiles.steps_in(lanes, RUN), low, high, RUN)
    x = w * tiles.spread_runs(tl.div_rn(a * 0.0 + 1.0, a), RUN)
    gw = grad * tiles.spread_runs(a * tl.full((), RADIUS, tl.float32), RUN)
    a = tiles.spread_runs(a, RUN)
    numel = tiles.size_at(row, tiles.NUMEL, ALIGNED)
    tensor = tl.load(row + tiles.TENSOR).to(tl.uint32)
    key0, key1 = key_of(seed, seed_at)
    step_word = step_of(step, step_at)
    c1, b = gamma_factors(c1, b, gamma_at, RADIUS)
    norm = norm_of(norm, norm_at)
    if WITH_BASE or WITH_COUNT:
        base = code_of(x, KIND, BITS)
    if WITH_BASE:
        bases = tiles.array_at(row, tiles.BASE, tl.uint8, ALIGNED)
        tl.store(bases + lead + ahead, base.to(tl.uint8), inside)
    for i in range(probes):
        d = direction(
            key0, key1, tile, first_probe + i, step_word, tensor, gw, c1, b, norm, atanh,
            SURROGATE, NOISE, RADIUS,
        )  # fmt: skip
        for side in tl.static_range(SIDES):
            number = tl.full((), SIDES, tl.int64) * i + side
            at = number * numel + lead
            if KIND == NO_GRID:
                moved = w + a * d if side == 0 else w - a * d
                out = tiles.array_at(row, tiles.OUT, tl.float32, ALIGNED) + at
                tl.store(out + ahead, moved, inside)
            else:
                code = code_of(x + d if side == 0 else x - d, KIND, BITS)
                if WITH_COUNT:
                    flipped = tl.sum(((code != base) & inside).to(tl.int32))
                    count = tiles.array_at(row, tiles.COUNT, tl.int64, False)
                    tl.atomic_add(count + number, flipped.to(tl.int64), sem="relaxed")
                if FORM == VALUES:
                    out = tiles.array_at(row, tiles.OUT, tl.float32, ALIGNED) + at
                    tl.store(out + ahead, a * value_of(code, KIND, BITS), inside)
                elif FORM == CODES:
                    out = tiles.array_at(row, tiles.OUT, tl.uint8, ALIGNED) + at
                    tl.store(out + ahead, code.to(tl.uint8), inside)
                else:  # at is a multiple of per_byte
                    first = tiles.steps_in(lanes, per_byte)
                    out = tiles.array_at(row, tiles.OUT, tl.uint8, ALIGNED) + at // per_byte
                    data = pack_last(code, STORED)
                    tl.store(out + first // per_byte, data, (first >= low) & (first < high))


def _case(name: str, host: bool = False, **constexprs: Any) -> _launch.Case:
    """Scalars in memory, or (host) as arguments; an atanh that is a type is a pointer."""
    types = {"table": "*i64", "seed_at": "*i64", "step_at": "*i64", "gamma_at": "*fp64"}
    types |= {"norm_at": "*fp32", "seed": "i64", "step": "i64", "first_probe": "i64"}
    types |= {"probes": "i32", "c1": "fp32", "b": "fp32", "norm": "fp32"}
    usual: dict[str, Any] = {
        "KIND": 3,
        "BITS": 2,
        "SURROGATE": 1,
        "NOISE": 0,
        "RADIUS": 0.2886751345948129,
    }
    usual |= {"SIDES": 2, "WITH_BASE": False, "WITH_COUNT": False, "STORED": 2, "RUN": 128}
    usual |= {"ALIGNED": True, "STEPS": 8, "atanh": None}
    if host:
        absent = [name for name in types if name.endswith("_at")]
        types = {name: of for name, of in types.items() if name not in absent}
        usual |= dict.fromkeys(absent)
    if "atanh" in constexprs:
        types["atanh"] = constexprs.pop("atanh")
        del usual["atanh"]
    return _launch.Case(name, types, {**usual, **constexprs})


_SIGN: dict[str, Any] = {
    "KIND": 0,
    "BITS": 1,
    "SURROGATE": 4,
    "STORED": 1,
    "RADIUS": 0.4082482904638631,
}
_TANH: dict[str, Any] = {"SURROGATE": 3, "RADIUS": 0.9068996821171089, "atanh": "*fp32"}
PLAIN, TANH = (
    _launch.Kernel(
        "perturb_quantize",
        perturb_quantize_kernel,
        (
            _case("packed", FORM=PACKED.value),
            _case("packed, rademacher", FORM=PACKED.value, NOISE=1, RADIUS=0.5),
            _case("packed, sign", FORM=PACKED.value, **_SIGN),
            _case("packed, host scalars", True, FORM=PACKED.value, STEPS=0),
            _case("values", FORM=VALUES.value, RUN=4, BITS=4),
            _case("codes, counted", FORM=CODES.value, WITH_BASE=True, WITH_COUNT=True),
            _case("no grid", FORM=VALUES.value, KIND=NO_GRID.value, BITS=0, RUN=0),
        ),
    ),
    _launch.Kernel(
        "perturb_quantize.tanh",
        perturb_quantize_kernel,
        (_case("packed, tanh", FORM=PACKED.value, **{**_SIGN, **_TANH}),),
    ),
)
KERNELS = (PLAIN, TANH, COUNT, FIND)


def supports(op: str, backend: str, case: tuple[Any, ...] | None) -> str | None:
    return None


def perturb_quantize(out: tuple[Any, Any], count_flips: bool, **call: Any) -> tuple[Any, Any]:
    result, count = out
    counts = None if count is None else count[None]
    results, _ = perturb_quantize_many([call], count_flips, ([result], counts))
    return results[0], count


def perturb_quantize_many(
    calls: list[dict[str, Any]], count_flips: bool, out: tuple[list[Any], Any]
) -> tuple[list[Any], Any]:
    """One launch for all tensors of one grid, surrogate and kind of scale."""
    outs, counts = out
    if counts is None and calls[0]["form"] == "flips":
        sides = calls[0]["sides"] * calls[0]["draw"].probes
        counts = torch.empty((len(calls), sides), dtype=torch.int64, device=calls[0]["w"].device)
    if counts is not None:
        counts.zero_()
    jobs = [
        _Job(call, given, None if counts is None else counts[i])
        for i, (call, given) in enumerate(zip(calls, outs, strict=True))
    ]
    device = jobs[0].w.device
    per_program = PLAIN.pick(device).blocks["TILES"]
    first = calls[0]
    draw = first["draw"]
    some = [(job.row(per_program), job.needs()) for job in jobs if 0 not in job.w.shape]
    for rows, needs in tables.launches(some):
        table, steps, programs = tables.device_table(rows, device)
        (PLAIN if needs["atanh"] is None else TANH).launch(
            device,
            programs,
            table=table,
            **tables.coordinates(draw),
            first_probe=draw.first_probe,
            probes=draw.probes,
            **tables.estimator(needs["RADIUS"], first["gamma"], first["norm"]),
            SIDES=first["sides"],
            STEPS=steps,
            **needs,
        )
    if first["form"] == "flips":
        codes, bases = [job.result for job in jobs], [job.base for job in jobs]
        return find_flips(codes, bases, counts, [job.given for job in jobs]), counts
    return [job.finish() for job in jobs], counts


class _Job:
    """One tensor: its arrays, those the kernel writes among them, and what remains to be done."""

    def __init__(self, call: dict[str, Any], given: Any, count: Any) -> None:
        self.call, self.given = call, given
        self.w, self.grad, self.scale = (
            _array.contiguous(call[name]) for name in ("w", "grad", "scale")
        )
        self.shape = call["shape"]
        self.form, grid = call["form"], call["grid"]
        self.count: Any = None if grid is None else count
        self.stored = 8 if grid is None else grid.storage_bits
        self.direct = self.form in ("values", "codes") or (self.form == "packed" and self.rows_fit)
        device = self.w.device
        self.base = None
        if self.form == "flips":
            self.base = _empty(given and given.base, call["view"].shape, torch.uint8, device)
        self.result = given
        kind = torch.float32 if self.form == "values" else torch.uint8
        if not self.direct:
            self.result = torch.empty(self.shape, dtype=torch.uint8, device=device)
        elif self.form == "packed":
            self.result = given or _packed(self.shape, self.stored, device)
        elif given is None:
            self.result = torch.empty(self.shape, dtype=kind, device=device)

    @property
    def rows_fit(self) -> bool:
        """Whether whole bytes hold the codes of a row, of a segment and before the first."""
        draw, per_byte = self.call["draw"], 8 // self.stored
        sizes = (self.shape[-1], draw.offset, draw.row_pitch)
        return all(size % per_byte == 0 for size in sizes)

    def row(self, per_program: int) -> dict[str, int]:
        result = self.result.data if isinstance(self.result, Packed) else self.result
        return tables.row(
            self.call["view"],
            self.call["draw"],
            per_program,
            w=self.w,
            grad=self.grad,
            scale=self.scale,
            out=result,
            base=self.base,
            count=self.count,
        )

    def needs(self) -> dict[str, Any]:
        """Constexprs of the launch."""
        grid = self.call["grid"]
        return {
            "KIND": NO_GRID.value if grid is None else grid.number,
            "BITS": 0 if grid is None else grid.code_bits,
            **tables.noise_of(self.call["draw"], self.w.device),
            "FORM": FORMS[self.form if self.direct else "codes"],
            "WITH_BASE": self.base is not None,
            "WITH_COUNT": self.count is not None,
            "STORED": self.stored,
        }

    def finish(self) -> Any:
        """The result; bytes are packed where the kernel could not write whole ones."""
        if self.direct:
            return self.result
        packed = self.given or _packed(self.shape, self.stored, self.w.device)
        pack_rows(self.result, packed.data, self.stored)
        return packed


def _empty(given: Any, shape: tuple[int, ...], kind: torch.dtype, device: torch.device) -> Any:
    return torch.empty(shape, dtype=kind, device=device) if given is None else given


def _packed(shape: tuple[int, ...], bits: int, device: torch.device) -> Packed:
    size = _check.packed_shape(shape, bits)
    return Packed(torch.empty(size, dtype=torch.uint8, device=device), bits, shape)
