"""probe_matmul on a GPU: two sides at once, against torch._int_mm, torch._scaled_mm, torch.bmm."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

import fogzo_kernels as fk
from fogzo_kernels.probe_matmul import native

from . import _device
from . import peers_matmul as peers
from ._measure import measure
from ._options import BenchError, Options, grid_of, sizes
from ._report import Bar, Result, copy_yardstick, matmul_yardstick

SIDES = 2
# The bars of an H200, of architecture 9.0: times of ours over times of the peer's.
INT_MM, BMM, UNSHARED = "torch._int_mm", "torch.bmm, bfloat16", "x per side"
MOST = {INT_MM: 1 / 0.75, BMM: 1 / 1.5, UNSHARED: 1 / 1.1}


@dataclass(frozen=True)
class Case:
    """One row: rows of x, outputs, inputs, stored bits and the type of x."""

    m: int
    n: int
    k: int
    bits: float
    x: str
    barred: bool = False


CASES = (
    Case(8192, 4096, 4096, 2, "int8", True),
    Case(8192, 4096, 4096, 2, "bfloat16"),
    Case(8192, 4096, 4096, 2, "float8_e4m3fn"),
    Case(8, 4096, 4096, 2, "int8"),
    Case(8, 4096, 4096, 2, "bfloat16"),
    Case(8192, 4096, 4096, 4, "int8"),
)


def cases(options: Options) -> list[Callable[[], Result]]:
    """The committed cases that fit the choices, else one of that shape with no bar."""
    if options.probes is not None:
        raise BenchError("probe_matmul: --probes is measured on a CPU alone, here there is one", 2)
    shape = sizes("probe_matmul", options.shape, (8192, 4096, 4096))
    found = [
        case
        for case in CASES
        if (options.shape is None or (case.m, case.n, case.k) == shape)
        and options.bits in (None, case.bits)
        and options.dtype in (None, case.x)
        and takes(case)
    ]
    m, n, k = shape
    own = Case(m, n, k, options.bits or 2, options.dtype or "int8")
    return [partial(run, case, options) for case in found or [own]]


def takes(case: Case) -> bool:
    """float8 needs compute capability 9.0."""
    return case.x != "float8_e4m3fn" or torch.cuda.get_device_capability() >= (9, 0)


def run(case: Case, options: Options) -> Result:
    """Measure one case: one x for both sides, one x a side, and torch's products of its size.

    Every product is checked against that of float32 values: to 1e-5 of the largest result where x
    is int8, to 2^-6 where products or results are of a lower precision.

    Returns:
        Times; bars on architecture 9.0 where the case has them.
    """
    draw = _device.generator()
    grid = grid_of(case.bits)
    shape = (SIDES, case.n, case.k)
    codes = torch.randint(0, grid.levels, shape, generator=draw, dtype=torch.uint8)
    packed = fk.pack(codes, grid.storage_bits)
    scale = torch.rand((case.n, 1), generator=draw) * 0.01 + 0.01
    x = torch.randn((case.m, case.k), generator=draw)
    x_scale = None
    if case.x == "int8":
        x, x_scale = fk.quantize_activation(x)
    else:
        x = x.to(getattr(torch, case.x))
        x_scale = torch.ones(case.m) if "float8" in case.x else None
    given = x.float() if x_scale is None else x.float() * x_scale[:, None]
    with fk.use_backend("reference"):
        values = torch.stack([fk.dequantize(one, scale, grid) for one in codes])
    wanted = torch.stack([given @ one.T for one in values])
    dtype = x.dtype if x_scale is None else torch.float32
    out = torch.empty((SIDES, case.m, case.n), dtype=dtype)
    x_each = x.expand(SIDES, *x.shape).contiguous()
    scale_each = None if x_scale is None else x_scale.expand(SIDES, -1).contiguous()

    def shared() -> Tensor:
        return fk.probe_matmul(x, packed, scale, grid, x_scale=x_scale, out=out)

    def unshared() -> Tensor:
        return fk.probe_matmul(x_each, packed, scale, grid, x_scale=scale_each, out=out)

    name = options.backend or _device.BACKEND[_device.current().type]
    variants: dict[str, Callable[[], Tensor]] = {
        name: partial(_forced, name, shared),
        f"{name}, {UNSHARED}": partial(_forced, name, unshared),
        **peers.products(case.x, x, x_scale, codes, values, scale, grid, options.compiled),
    }
    if wgmma(case, name):
        for kernel in native.KERNELS:
            variants[f"{name}, {kernel}"] = partial(_forced, name, shared, kernel)
    users = {"x": given, "weight": values, "codes": codes, "scale": scale, "grid": grid}
    variants |= options.users("probe_matmul", **users)
    most = wanted.abs().max().item()
    limit = 1e-5 if case.x == "int8" else 2.0**-6
    for which, call in variants.items():
        allowed = limit if which.startswith(name) else 2.0**-6
        error = (call().float().reshape(wanted.shape) - wanted).abs().max().item()
        if not error <= allowed * most:
            raise BenchError(f"probe_matmul: {which} is off by {error}, largest {most}")
    yardstick, copied = copy_yardstick(case.m * case.k)
    matmul, operations = matmul_yardstick(_device.pick(768, 8192))
    times = measure(
        {**variants, "copy": yardstick, "peak": matmul},
        threads=options.threads,
        rounds=options.repeat,
    )
    peak = operations / times.pop("peak").median
    return Result(
        op="probe_matmul",
        shape={"M": case.m, "N": case.n, "K": case.k, "bits": case.bits, "x": case.x,
               "sides": SIDES},
        copy=times.pop("copy"),
        times=times,
        bars=bars(case, name),
        copied=copied,
        operations=2 * SIDES * case.m * case.n * case.k,
        peak=peak,
    )  # fmt: skip


def bars(case: Case, name: str) -> list[Bar]:
    """Where the case has bars and this is their architecture."""
    if not case.barred or (_device.on_gpu() and torch.cuda.get_device_capability()[0] != 9):
        return []
    names = {INT_MM: INT_MM, BMM: BMM, UNSHARED: f"{name}, {UNSHARED}"}
    return [Bar(name, names[peer], round(most, 4)) for peer, most in MOST.items()]


def wgmma(case: Case, name: str) -> bool:
    """Whether auto may take either CUDA kernel here, so that both are measured."""
    if name != "cuda" or case.x not in ("int8", "bfloat16") or case.m <= native.FEW_ROWS:
        return False
    return _device.architecture() == 90


def _forced(name: str, call: Callable[[], Tensor], kernel: str = "auto") -> Tensor:
    with fk.use_backend(name), native.use_kernel(kernel):
        return call()
