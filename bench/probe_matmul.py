"""probe_matmul of one shape: low-bit weights with int8 or float32 activations, against torch.

`--isa avx2` limits our kernels and the peers (torch, MKL, oneDNN, fbgemm) to AVX2; without it each
takes the best instructions that it has for this CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import torch

import fogzo_kernels as fk

from . import _device, onnx_peer, probe_matmul_cuda, probe_matmul_flips
from . import peers_matmul as peers
from ._measure import measure
from ._options import BenchError, Options, sizes
from ._report import Bar, Result, copy_yardstick, fastest, matmul_yardstick, say

TESTS = ("test_probe_matmul*.py", "test_quantize_activation.py")
ABOUT = "low-bit weights times activations, for all probes at once"
TAKES = {
    "shape": "M x N x K",
    "bits": "2..8",
    "dtype": "int8, float32, bfloat16; float8_e4m3fn on a GPU",
    "backend": "",
}


@dataclass(frozen=True)
class Case:
    """One row: shape, bits, activations, the bars by kind of peer as speed ratios, and the weights.

    Weights are uniform codes, the hardest case where the time depends on them, or by the name of a
    scale's rule, of normal weights.
    """

    m: int
    n: int
    k: int
    bits: int
    x: str  # "int8", "int8, quantized inside", "float32", "bfloat16"
    bars: dict[str, float]
    weights: str = "uniform"


FLOAT, FBGEMM, ONEDNN, EAGER = "float32", "fbgemm", "onednn", "eager unpack"
ONNX = "onnxruntime"
CASES = (
    Case(512, 768, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(2048, 768, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(512, 3072, 768, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(512, 768, 3072, 2, "int8", {FLOAT: 2.5, FBGEMM: 1.4}),
    Case(8, 768, 768, 2, "int8", {FLOAT: 2.5}),
    Case(8, 3072, 768, 2, "int8", {FLOAT: 2.5}),
    Case(512, 768, 768, 4, "int8", {FLOAT: 2.2}),
    Case(512, 768, 768, 8, "int8", {FBGEMM: 1.0}),
    Case(512, 768, 768, 8, "int8", {FBGEMM: 1.0}, "lsq"),
    Case(512, 768, 768, 6, "int8", {}),
    Case(512, 768, 768, 2, "int8, quantized inside", {}),
    Case(512, 768, 768, 2, "float32", {FLOAT: 0.95}),
    Case(512, 768, 3072, 2, "float32", {FLOAT: 0.95}),
    Case(8, 768, 768, 2, "float32", {FLOAT: 0.95, EAGER: 4.0}),
)


def cases(options: Options) -> list[Callable[[], Result]]:
    """The committed cases that fit the choices, else one of that shape with no bar."""
    if _device.on_gpu():
        return probe_matmul_cuda.cases(options)
    if options.dtype == "float8_e4m3fn":
        raise BenchError("probe_matmul: --dtype float8_e4m3fn is measured on a GPU alone", 2)
    m, n, k = sizes("probe_matmul", options.shape, (512, 768, 768))
    found = [
        case
        for case in CASES
        if (options.shape is None or (case.m, case.n, case.k) == (m, n, k))
        and options.bits in (None, case.bits)
        and (options.dtype is None or case.x.startswith(options.dtype))
    ]
    own = Case(m, n, k, options.bits or 2, options.dtype or "int8", {})
    flips = probe_matmul_flips.cases(options)
    return [*(partial(run, case, options) for case in found or [own]), *flips]


def _limit(name: str, case: Case) -> float:
    """How far a result may be off, as a share of the largest: its own rounding."""
    if name in (FBGEMM, ONEDNN):
        return (0.6 if case.bits < 8 else 5.0) / 127
    if "inside" in case.x or name in ("fbgemm dynamic", ONNX):
        return 0.05
    return 2**-7 if case.x == "bfloat16" else 1e-5


def run(case: Case, options: Options) -> Result:
    """Measure one case.

    The peers multiply the same numbers; each is checked against the product in float64: to 1e-5 of
    the largest result, an 8-bit result to 0.6 of its step (to 5 with
    8-bit weights, where its activations have 7 bits).

    Args:
        case: shape and bars.
        options: backend and how to measure.

    Returns:
        Times and bars.
    """
    generator = torch.Generator().manual_seed(0)
    grid = fk.Grid("mid-rise" if case.bits < 8 else "mid-tread", bits=case.bits)
    codes = torch.randint(0, grid.levels, (case.n, case.k), generator=generator, dtype=torch.uint8)
    scale = torch.rand((case.n, 1), generator=generator) * 0.01 + 0.01
    if case.weights != "uniform":
        latent = torch.randn((case.n, case.k), generator=generator)
        scale = fk.compute_scale(latent, grid, case.weights)
        codes = fk.quantize(latent, scale, grid)
    packed = fk.pack(codes, grid.storage_bits)
    x = torch.randn((case.m, case.k), generator=generator)
    x8, x_scale = fk.quantize_activation(x)
    x_scale.fill_(x_scale.mean())  # one for all rows: fbgemm takes no more
    weight = fk.dequantize(codes, scale, grid)
    rows = x8 * x_scale[:, None] if case.x == "int8" else x
    wanted = rows.double() @ weight.double().mT
    out = torch.empty(1, case.m, case.n)
    half, half_out = x.bfloat16(), out.bfloat16()

    def int8() -> torch.Tensor:
        return fk.probe_matmul(x8, packed, scale, grid, x_scale=x_scale, out=out)

    def inside() -> torch.Tensor:
        own, own_scale = fk.quantize_activation(x)
        return fk.probe_matmul(own, packed, scale, grid, x_scale=own_scale, out=out)

    def float32() -> torch.Tensor:
        return fk.probe_matmul(x, packed, scale, grid, out=out)

    def bfloat16() -> torch.Tensor:
        return fk.probe_matmul(half, packed, scale, grid, out=half_out)

    ours = {"int8": int8, "float32": float32, "bfloat16": bfloat16}.get(case.x, inside)
    variants = {**_on(ours, options), **peers.linears(rows, weight)}
    given = (x8, float(x_scale[0]), codes, scale, grid, wanted)
    if case.x == "int8":
        for engine in (FBGEMM, ONEDNN):
            variants[engine] = peers.quantized_linear(engine, *given)
        absent = onnx_peer.missing(case.bits, case.k)
        if absent is None:
            variants[ONNX] = onnx_peer.matmul_n_bits(rows, codes, scale, grid, options.threads)
        elif case.bits == 4:
            say(f"probe_matmul: ONNX Runtime is not measured: {absent}")
    elif case.x == "bfloat16":
        variants["bfloat16 linear"] = peers.linears(half, weight.bfloat16())["float32 linear"]
    elif case.x != "float32":
        variants["fbgemm dynamic"] = peers.fbgemm_dynamic(x, codes, scale, grid)
    elif EAGER in case.bars:
        variants[EAGER] = peers.unpacked_linear(x, packed.data, scale)
    variants |= options.users(
        "probe_matmul", x=rows, weight=weight, codes=codes, scale=scale, grid=grid
    )
    most = wanted.abs().max().item()
    for name, call in variants.items():
        got = call()
        got = got.dequantize() if got.is_quantized else got
        shift = onnx_peer.offset(rows, scale) if name == ONNX else 0
        error = (got.reshape(wanted.shape).double() + shift - wanted).abs().max().item()
        if error > _limit(name, case) * most:
            raise BenchError(f"probe_matmul: {name} is off by {error}, largest {most}")
    yardstick, copied = copy_yardstick(case.m * case.k)
    matmul, operations = matmul_yardstick()
    times = measure(
        {**variants, "copy": yardstick, "peak": matmul},
        threads=options.threads,
        rounds=options.repeat,
    )
    peak = operations / times.pop("peak").median
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
            **({} if case.weights == "uniform" else {"weights": case.weights}),
            "torch": torch.backends.cpu.get_cpu_capability(),
        },
        copy=times.pop("copy"),
        times=times,
        bars=[
            Bar("cpu", kinds[kind], round(1 / ratio, 4))
            for kind, ratio in case.bars.items()
            if "cpu" in times
        ],
        copied=copied,
        operations=2 * case.m * case.n * case.k,
        peak=peak,
    )


def _on(
    call: Callable[[], torch.Tensor], options: Options
) -> dict[str, Callable[[], torch.Tensor]]:
    """Ours by the backend it runs on; the one that is chosen by itself is not forced."""
    usable = fk.capabilities()["probe_matmul"]
    if options.backend is None and usable["cpu"] is None:
        return {"cpu": call}

    def on(name: str) -> Callable[[], torch.Tensor]:
        def forced() -> torch.Tensor:
            with fk.use_backend(name):
                return call()

        return forced

    return {name: on(name) for name in options.backends("probe_matmul", ("reference",))}
