"""probe_matmul of Flips, as perturb_quantize gives them, against the packed codes of all sides."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

import fogzo_kernels as fk

from ._measure import measure
from ._options import Options, require_close
from ._report import Result, copy_yardstick

PACKED = "packed sides"


@dataclass(frozen=True)
class Case:
    """One row: shape, bits, activations, sides that share x, and the share of codes that flip."""

    m: int
    n: int
    k: int
    bits: int
    x: str  # "int8", "float32"
    sides: int
    share: float


CASES = (
    Case(512, 768, 768, 2, "int8", 2, 0.001),
    Case(512, 768, 768, 2, "int8", 8, 0.001),
    Case(512, 768, 768, 2, "int8", 2, 0.05),  # too many to correct
    Case(512, 768, 768, 2, "float32", 2, 0.001),
    Case(512, 768, 768, 2, "float32", 8, 0.001),
    Case(8, 768, 768, 2, "int8", 2, 0.001),
    Case(8, 768, 768, 2, "int8", 8, 0.001),
)


def cases(options: Options) -> list[Callable[[], Result]]:
    """The cases that fit the choices; none on a backend of the user's own choice."""
    return [
        partial(run, case, options)
        for case in CASES
        if options.shape in (None, (case.m, case.n, case.k))
        and options.bits in (None, case.bits)
        and options.dtype in (None, case.x)
        and options.backend in (None, "cpu")
        and options.probes is None
    ]


def run(case: Case, options: Options) -> Result:
    """Measure one case; both products must agree to 1e-5 of the largest result."""
    generator = torch.Generator().manual_seed(0)
    grid = fk.Grid("mid-rise", bits=case.bits)
    shape = (case.n, case.k)
    base = torch.randint(0, grid.levels, shape, generator=generator, dtype=torch.uint8)
    scale = torch.rand((case.n, 1), generator=generator) * 0.01 + 0.01
    count = round(case.share * base.numel())
    index = torch.stack(
        [torch.randperm(base.numel(), generator=generator)[:count] for _ in range(case.sides)]
    ).sort()[0]
    code = ((base.view(-1)[index].int() + 1) % grid.levels).to(torch.uint8)
    codes = base.view(-1).repeat(case.sides, 1).scatter_(1, index, code)
    flips = fk.Flips(base, index, code, torch.full((case.sides,), count))
    packed = fk.pack(codes.view(case.sides, *shape), grid.storage_bits)
    x = torch.randn((case.m, case.k), generator=generator)
    named = {"out": torch.empty(case.sides, case.m, case.n)}
    if case.x == "int8":
        x, named["x_scale"] = fk.quantize_activation(x)

    def ours() -> torch.Tensor:
        found: torch.Tensor = fk.probe_matmul(x, flips, scale, grid, **named)
        return found

    def sides() -> torch.Tensor:
        found: torch.Tensor = fk.probe_matmul(x, packed, scale, grid, **named)
        return found

    require_close("probe_matmul", PACKED, sides().clone(), ours(), 1e-5)
    yardstick, copied = copy_yardstick(case.m * case.k)
    times = measure(
        {"cpu": ours, PACKED: sides, "copy": yardstick},
        threads=options.threads,
        rounds=options.repeat,
    )
    return Result(
        op="probe_matmul",
        shape={
            "M": case.m,
            "N": case.n,
            "K": case.k,
            "bits": case.bits,
            "x": case.x,
            "sides": case.sides,
            "flips": case.share,
        },
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        operations=2 * case.m * case.n * case.k * case.sides,
    )
