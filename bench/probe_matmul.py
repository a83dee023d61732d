"""probe_matmul of one shape: low-bit weights with int8 or float32 activations, against torch.

`--isa avx2` limits our kernels and the peers (torch, MKL, oneDNN, fbgemm) to AVX2; without it each
takes the best instructions that it has for this CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch

import fogzo_kernels as fk

from . import peers
from ._measure import measure
from ._report import Bar, Result, copy_yardstick, fastest

TESTS = ("test_probe_matmul*.py", "test_quantize_activation.py")


@dataclass(frozen=True)
class Case:
    """One row: shape, stored bits, activations, and the bars by kind of peer as speed ratios."""

    m: int
    n: int
    k: int
    bits: int
    x: str  # "int8", "int8, quantized inside", "float32"
    bars: dict[str, float]


FLOAT, FBGEMM, EAGER = "float32", "fbgemm", "eager unpack"
CASES = (
    Case(512, 768, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(2048, 768, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(512, 3072, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(512, 768, 3072, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(8, 768, 768, 2, "int8", {FLOAT: 2.5}),
    Case(8, 3072, 768, 2, "int8", {FLOAT: 2.5}),
    Case(512, 768, 768, 4, "int8", {FLOAT: 2.2}),
    Case(512, 768, 768, 8, "int8", {FBGEMM: 1.0}),
    Case(512, 768, 768, 2, "int8, quantized inside", {}),
    Case(512, 768, 768, 2, "float32", {FLOAT: 0.95}),
    Case(512, 768, 3072, 2, "float32", {FLOAT: 0.95}),
    Case(8, 768, 768, 2, "float32", {FLOAT: 0.95, EAGER: 4.0}),
)


def run(case: Case, threads: int, rounds: int) -> Result:
    """Measure one case.

    The peers multiply the same numbers; each is checked against the product in float64: to 1e-5 of
    the largest result, fbgemm's 8-bit result to 0.6 of its step.

    Args:
        case: shape and bars.
        threads: for torch and our kernels.
        rounds: samples per variant.

    Returns:
        Times and bars.
    """
    generator = torch.Generator().manual_seed(0)
    grid = fk.Grid("mid-rise", bits=case.bits)
    codes = torch.randint(0, grid.levels, (case.n, case.k), generator=generator, dtype=torch.uint8)
    packed = fk.pack(codes, case.bits)
    scale = torch.rand((case.n, 1), generator=generator) * 0.01 + 0.01
    x = torch.randn((case.m, case.k), generator=generator)
    x8, x_scale = fk.quantize_activation(x)
    x_scale.fill_(x_scale.mean())  # one for all rows: fbgemm takes no more
    weight = fk.dequantize(codes, scale, grid)
    rows = x8 * x_scale[:, None] if case.x == "int8" else x
    wanted = rows.double() @ weight.double().mT
    out = torch.empty(1, case.m, case.n)

    def int8() -> torch.Tensor:
        return fk.probe_matmul(x8, packed, scale, grid, x_scale=x_scale, out=out)[0]

    def inside() -> torch.Tensor:
        own, own_scale = fk.quantize_activation(x)
        return fk.probe_matmul(own, packed, scale, grid, x_scale=own_scale, out=out)[0]

    def float32() -> torch.Tensor:
        return fk.probe_matmul(x, packed, scale, grid, out=out)[0]

    ours = {"int8": int8, "float32": float32}.get(case.x, inside)
    variants: dict[str, Callable[[], torch.Tensor]] = {"cpu": ours, **peers.linears(rows, weight)}
    if case.x == "int8":
        variants[FBGEMM] = peers.fbgemm_linear(x8, float(x_scale[0]), codes, scale, grid, wanted)
    elif case.x != "float32":
        variants["fbgemm dynamic"] = peers.fbgemm_dynamic(x, codes, scale, grid)
    elif EAGER in case.bars:
        variants[EAGER] = peers.unpacked_linear(x, packed.data, scale)
    most = wanted.abs().max().item()
    for name, call in variants.items():
        limit = {FBGEMM: 0.6 * most / 127, "fbgemm dynamic": 0.05 * most}.get(name, 1e-5 * most)
        got = call()
        got = got.dequantize() if got.is_quantized else got
        error = (got.double() - wanted).abs().max().item()
        if error > (0.05 * most if "inside" in case.x else limit):
            raise RuntimeError(f"bench probe_matmul: {name} is off by {error}, largest {most}")
    yardstick, copied = copy_yardstick(case.m * case.k)
    times = measure({**variants, "copy": yardstick}, threads=threads, rounds=rounds)
    kinds = {
        FLOAT: fastest(times, [name for name in times if name.startswith(FLOAT)]),
        FBGEMM: FBGEMM,
        EAGER: EAGER,
    }
    return Result(
        op="probe_matmul",
        shape={
            "M": case.m,
            "N": case.n,
            "K": case.k,
            "bits": case.bits,
            "x": case.x,
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        copy=times.pop("copy"),
        times=times,
        bars=[Bar("cpu", kinds[kind], round(1 / ratio, 4)) for kind, ratio in case.bars.items()],
        copied=copied,
        operations=2 * case.m * case.n * case.k,
    )
