"""probe_matmul of one shape: low-bit weights with int8 or float32 activations, against torch.

`--isa avx2` limits our kernels and the peers (torch, MKL, oneDNN, fbgemm) to AVX2; without it each
takes the best instructions that it has for this CPU.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import partial

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _backends, _device, onnx_peer, probe_matmul_cuda, probe_matmul_flips
from . import peers_matmul as peers
from ._measure import measure
from ._options import BITS, BenchError, Options, grid_of, sizes
from ._report import Bar, Result, copy_yardstick, fastest, matmul_yardstick, say

TESTS = ("test_probe_matmul*.py", "test_quantize_activation.py")
ABOUT = "low-bit weights times activations, for all probes at once"
TAKES = {
    "shape": "M x N x K",
    "bits": BITS,
    "dtype": "int8, float32, bfloat16; float8_e4m3fn on a GPU",
    "probes": "as many pairs of weights, which share x (default: one weight)",
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
    bits: float
    x: str  # "int8", "int8, quantized inside", "float32", "bfloat16"
    bars: dict[str, float] = field(default_factory=dict)
    weights: str = "uniform"
    sides: int = 0  # of probes; 0: one weight


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
    found = found or [Case(m, n, k, options.bits or 2, options.dtype or "int8")]
    if options.probes is not None:
        found = [replace(case, sides=2 * options.probes, bars={}) for case in found]
    return [*(partial(run, case, options) for case in found), *probe_matmul_flips.cases(options)]


def _limit(name: str, case: Case) -> float:
    """How far a result may be off, as a share of the largest: its own rounding."""
    if name in (FBGEMM, ONEDNN):
        return (0.6 if case.bits < 8 else 5.0) / 127
    if "inside" in case.x or name in ("fbgemm dynamic", ONNX):
        return 0.05
    return 2**-7 if case.x == "bfloat16" else 1e-5


@dataclass(frozen=True)
class Given:
    """What is multiplied: x as float32, as int8 with one scale, and the values that a case takes.

    codes [sides, N, K], weights (their values) and wanted [sides, M, N], the product in float64.
    """

    x: Tensor
    x8: Tensor
    x_scale: Tensor
    rows: Tensor
    grid: fk.Grid
    scale: Tensor
    codes: Tensor
    weights: Tensor
    wanted: Tensor


def _given(case: Case) -> Given:
    generator = torch.Generator().manual_seed(0)
    grid = grid_of(case.bits, "mid-rise" if case.bits < 8 else "mid-tread")
    size = (max(case.sides, 1), case.n, case.k)
    codes = torch.randint(0, grid.levels, size, generator=generator, dtype=torch.uint8)
    scale = torch.rand((case.n, 1), generator=generator) * 0.01 + 0.01
    if case.weights != "uniform":
        latent = torch.randn((case.n, case.k), generator=generator)
        scale = fk.compute_scale(latent, grid, case.weights)
        codes = fk.quantize(latent, scale, grid).expand(size)
    x = torch.randn((case.m, case.k), generator=generator)
    x8, x_scale = fk.quantize_activation(x)
    x_scale.fill_(x_scale.mean())  # one for all rows: fbgemm takes no more
    weights = torch.stack([fk.dequantize(one, scale, grid) for one in codes])
    rows = x8 * x_scale[:, None] if case.x == "int8" else x
    wanted = rows.double() @ weights.double().mT
    return Given(x, x8, x_scale, rows, grid, scale, codes, weights, wanted)


def _ours(case: Case, g: Given) -> Callable[[], Tensor]:
    packed = fk.pack(g.codes if case.sides else g.codes[0], g.grid.storage_bits)
    out = torch.empty(g.wanted.shape)
    half, half_out = g.x.bfloat16(), out.bfloat16()

    def int8() -> Tensor:
        return fk.probe_matmul(g.x8, packed, g.scale, g.grid, x_scale=g.x_scale, out=out)

    def inside() -> Tensor:
        own, own_scale = fk.quantize_activation(g.x)
        return fk.probe_matmul(own, packed, g.scale, g.grid, x_scale=own_scale, out=out)

    def float32() -> Tensor:
        return fk.probe_matmul(g.x, packed, g.scale, g.grid, out=out)

    def bfloat16() -> Tensor:
        return fk.probe_matmul(half, packed, g.scale, g.grid, out=half_out)

    return {"int8": int8, "float32": float32, "bfloat16": bfloat16}.get(case.x, inside)


def _peers(case: Case, g: Given, side: int, options: Options) -> dict[str, Callable[[], Tensor]]:
    """The products of one side's weight, by name."""
    codes, weight = g.codes[side], g.weights[side]
    found = peers.linears(g.rows, weight)
    if case.x == "int8":
        given = (g.x8, float(g.x_scale[0]), codes, g.scale, g.grid, g.wanted[side])
        for engine in (FBGEMM, ONEDNN):
            found[engine] = peers.quantized_linear(engine, *given)
        if onnx_peer.missing(case.bits, case.k) is None:
            found[ONNX] = onnx_peer.matmul_n_bits(g.rows, codes, g.scale, g.grid, options.threads)
    elif case.x == "bfloat16":
        half = peers.linears(g.x.bfloat16(), weight.bfloat16())
        found["bfloat16 linear"] = half["float32 linear"]
    elif case.x != "float32":
        found["fbgemm dynamic"] = peers.fbgemm_dynamic(g.x, codes, g.scale, g.grid)
    elif EAGER in case.bars:
        found[EAGER] = peers.unpacked_linear(g.x, fk.pack(codes, 2).data, g.scale)
    users = {"x": g.rows, "weight": weight, "codes": codes, "scale": g.scale, "grid": g.grid}
    return {**found, **options.users("probe_matmul", **users)}


def _check(case: Case, name: str, got: Tensor, wanted: Tensor, shift: Tensor | int = 0) -> None:
    """Within its own rounding of the product in float64."""
    got = got.dequantize() if got.is_quantized else got
    error = (got.reshape(wanted.shape).double() + shift - wanted).abs().max().item()
    most = wanted.abs().max().item()
    if error > _limit(name, case) * most:
        raise BenchError(f"probe_matmul: {name} is off by {error}, largest {most}")


def _all(calls: list[Callable[[], Tensor]]) -> Callable[[], object]:
    return calls[0] if len(calls) == 1 else lambda: [call() for call in calls]


def run(case: Case, options: Options) -> Result:
    """Measure one case.

    The peers multiply the same numbers, one side after the other; each is checked against the
    product in float64: to 1e-5 of the largest result, an 8-bit result to 0.6 of its step (to 5 with
    8-bit weights, where its activations have 7 bits).

    Args:
        case: shape and bars.
        options: backend and how to measure.

    Returns:
        Times and bars.
    """
    g = _given(case)
    absent = onnx_peer.missing(case.bits, case.k)
    if absent is not None and case.x == "int8" and case.bits == 4:
        say(f"probe_matmul: ONNX Runtime is not measured: {absent}")
    variants: dict[str, Callable[[], object]] = {}
    for name, call in _backends.calls("probe_matmul", _ours(case, g), options).items():
        _check(case, name, call(), g.wanted)
        variants[name] = call
    theirs = [_peers(case, g, side, options) for side in range(len(g.codes))]
    for name in theirs[0]:
        shift = onnx_peer.offset(g.rows, g.scale) if name == ONNX else 0
        for own, wanted in zip(theirs, g.wanted, strict=True):
            _check(case, name, own[name](), wanted, shift)
        variants[name] = _all([own[name] for own in theirs])
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
            **({"sides": case.sides} if case.sides else {}),
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
        operations=2 * len(g.codes) * case.m * case.n * case.k,
        peak=peak,
    )
