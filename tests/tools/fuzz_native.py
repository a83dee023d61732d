"""Call the `_cpu` bindings with random and with broken arguments; meant to run under sanitizers.

A good call must be accepted, equal the reference bit for bit and leave the bytes around its output
alone. A call with one broken argument must be refused and write nothing.

usage: fuzz_native.py [--seconds S] [--cases N] [--seed K]
"""

from __future__ import annotations

import argparse
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import fuzz_matmul
from fuzz_case import (
    FORMS,
    NOISES,
    SURROGATES,
    TABLE,
    Case,
    Guarded,
    Near,
    Prepared,
    rounding,
    sizes,
)
from fuzz_codes import (
    compute_scale,
    dequantize,
    hadamard,
    hadamard_quantize,
    pack,
    quantize,
    unpack,
)

import fogzo_kernels as fk
from fogzo_kernels import _native

_cpu = _native.module("_cpu")


def coordinates(c: Case) -> dict[str, int]:
    return {"seed": c.seed, "step": c.step, "tensor": c.tensor}


def noise(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    arguments = {
        "out": out.address,
        "table": TABLE.ctypes.data,
        "rows": c.rows,
        "cols": c.cols,
        "offset": c.offset,
        "row_pitch": c.row_pitch,
        "surrogate": c.surrogate,
        "noise": c.noise,
        **coordinates(c),
        "probe": c.first_probe,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        u = fk.noise(c.shape, SURROGATES[c.surrogate], **c.draw("probe"))
        return [np.asarray(u)]

    return arguments, [out], reference


def fake_quantize(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    return rounding(c, out), [out], lambda: [fk.fake_quantize(c.w, c.public_scale(), c.grid)]


def fake_quantize_backward(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    scales = Guarded(c.scale.shape, np.float32)
    c.surrogate = 2 if c.surrogate == 3 else c.surrogate
    limit = 0.99 if SURROGATES[c.surrogate] == "clipped" and c.seed % 2 else None
    arguments = {
        "grad": c.grad.ctypes.data,
        "w": c.w.ctypes.data,
        "scale": c.scale.ctypes.data,
        "grad_w": out.address,
        "grad_scale": scales.address,
        **sizes(c),
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "surrogate": c.surrogate,
        "limit": limit or 0.0,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        name = SURROGATES[c.surrogate]
        grad_w, grad_scale = fk.fake_quantize_backward(
            c.grad, c.w, c.public_scale(), c.grid, name, limit=limit
        )
        most = max(abs(c.grid.v_min), abs(c.grid.v_max), 1)  # no t is larger
        terms = np.abs(c.grad.astype(np.float64)).reshape(c.scale.size, -1).sum(1) * most
        rounding = terms.reshape(grad_scale.shape) * c.grad.size * 2.0**-52
        return [grad_w, Near(grad_scale, rounding)]

    return arguments, [out, scales], reference


def whitened_norm(c: Case) -> Prepared:
    out = Guarded((), np.float32)
    arguments = {
        "grads": [c.grad.ctypes.data, c.w.ctypes.data],
        "scales": [c.scale.ctypes.data] * 2,
        **{name: [size] * 2 for name, size in sizes(c).items()},
        "surrogates": [c.surrogate, 0],
        "noise": c.noise,
        "out": out.address,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        scale = c.public_scale()
        names = [SURROGATES[c.surrogate], "identity"]
        norm = fk.whitened_norm([c.grad, c.w], [scale, scale], names, noise=NOISES[c.noise])
        return [Near(norm, 0.0)]

    return arguments, [out], reference


def perturb_quantize(c: Case) -> Prepared:
    sides = c.probes * c.sides
    storage = c.grid.storage_bits
    width = (c.cols * storage + 7) // 8 if c.form == 2 else c.cols
    out = Guarded((sides, c.rows, width), np.float32 if c.form == 0 else np.uint8)
    flips = Guarded((sides,), np.int64)
    arguments = {
        "w": c.w.ctypes.data,
        "grad": c.grad.ctypes.data,
        "scale": c.scale.ctypes.data,
        "out": out.address,
        "flip_count": flips.address,
        "table": TABLE.ctypes.data,
        **sizes(c),
        "offset": c.offset,
        "row_pitch": c.row_pitch,
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "surrogate": c.surrogate,
        "noise": c.noise,
        "form": c.form,
        "sides": c.sides,
        "probes": c.probes,
        "first_probe": c.first_probe,
        **coordinates(c),
        "gamma": c.gamma,
        "norm": c.norm,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        counts = np.zeros(sides, np.int64)
        result = fk.perturb_quantize(
            c.w,
            c.grad,
            c.public_scale(),
            c.grid,
            SURROGATES[c.surrogate],
            **c.draw(),
            probes=c.probes,
            gamma=c.gamma,
            norm=c.norm,
            form=FORMS[c.form],
            sides="both" if c.sides == 2 else "plus",
            flip_count=counts,
        )
        return [result.data if c.form == 2 else result, counts]

    return arguments, [out, flips], reference


def assemble_gradient(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    arguments = {
        "grad": c.grad.ctypes.data,
        "scale": c.scale.ctypes.data,
        "differences": c.differences.ctypes.data,
        "out": out.address,
        "table": TABLE.ctypes.data,
        **sizes(c),
        "offset": c.offset,
        "row_pitch": c.row_pitch,
        "surrogate": c.surrogate,
        "noise": c.noise,
        "probes": c.probes,
        "first_probe": c.first_probe,
        **coordinates(c),
        "gamma": c.gamma,
        "norm": c.norm,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        name = SURROGATES[c.surrogate]
        args = (c.grad, c.public_scale(), c.differences, name)
        return [fk.assemble_gradient(*args, **c.draw(), gamma=c.gamma, norm=c.norm)]

    return arguments, [out], reference


def probe_matmul(c: Case) -> Prepared:
    return fuzz_matmul.probe_matmul(c, Guarded, Near)


def probe_matmul_flips(c: Case) -> Prepared:
    return fuzz_matmul.probe_matmul_flips(c, Guarded, Near)


def quantize_activation(c: Case) -> Prepared:
    return fuzz_matmul.quantize_activation(c, Guarded)


OPS = (
    noise,
    quantize,
    dequantize,
    pack,
    unpack,
    hadamard,
    hadamard_quantize,
    compute_scale,
    fake_quantize,
    fake_quantize_backward,
    whitened_norm,
    perturb_quantize,
    assemble_gradient,
    probe_matmul,
    probe_matmul_flips,
    quantize_activation,
)
BROKEN: dict[str, tuple[Any, ...]] = {
    "rows": (-1, 2**62),
    "cols": (-1, 2**62),
    "scale_cols": (0, -1, 2**40),
    "scale_rows": (0, -5, 2**40),
    "stored_bits": (0, 3, 16, -1),
    "block": (0, -2, 3, 2**21),
    "offset": (-1, 2**35, 2**63 - 1),
    "row_pitch": (-1, 0, 2**62),
    "surrogate": (-1, 6, 2**31 - 1),
    "limit": (-1.0, float("nan")),
    "scales": (-1, 2**62),
    "rule": (-1, 4),
    "noise": (-1, 2),
    "grid": (-1, 5),
    "form": (-1, 3),
    "sides": (0, 3),
    "probes": (0, -1, 2**62),
    "first_probe": (-1, 2**32),
    "probe": (-1, 2**32),
    "step": (-1, 2**32),
    "tensor": (-1, 2**32 - 1),
    "gamma": (-1e-9, 1.0000001, float("nan"), float("inf")),
    "out": (0,),
    "w": (0,),
    "grad": (0,),
    "grad_w": (0,),
    "differences": (0,),
    "scale": (0,),
    **fuzz_matmul.BROKEN,
    "scale values": (0.0, -1.0, float("nan"), float("inf"), 7e-31),
}


def same(got: Any, wanted: Any) -> bool:
    if isinstance(wanted, Near):
        value = np.asarray(wanted.value).reshape(got.shape)
        finite = np.isfinite(value)
        allowed = np.spacing(np.abs(value)) + np.asarray(wanted.error).reshape(got.shape)
        with np.errstate(invalid="ignore"):
            near = (np.abs(got - value) <= allowed) | ~finite
        return bool(near.all() and np.array_equal(got[~finite], value[~finite], equal_nan=True))
    wanted = np.asarray(wanted).reshape(got.shape)
    if got.dtype != np.float32:
        return bool(np.array_equal(got, wanted))
    nan = np.isnan(wanted)  # which NaN is not promised
    bits = got.view(np.int32) == wanted.astype(np.float32).view(np.int32)
    return bool((np.isnan(got) == nan).all() and (bits | nan).all())


def break_one(c: Case, arguments: dict[str, Any]) -> str:
    """Spoil one argument in place; its name."""
    named = [n for n in BROKEN if n in arguments or (n == "scale values" and "scale" in arguments)]
    if "grads" in arguments:  # whitened_norm, by lists
        name = c.rng.choice(("rows", "scales", "surrogates", "grads", "scale_cols"))
        arguments[name] = [*arguments[name][:-1], -1 if name in ("rows", "surrogates") else 0]
        return name
    name = c.rng.choice(named)
    if name == "scale values":
        c.scale.reshape(-1)[c.rng.randrange(c.scale.size)] = c.rng.choice(BROKEN[name])
    else:
        arguments[name] = c.rng.choice(BROKEN[name])
    return name


def describe(op: str, arguments: dict[str, Any]) -> str:
    return f"{op}({', '.join(f'{name}={value}' for name, value in arguments.items())})"


def one(op: Callable[[Case], Prepared], rng: random.Random) -> tuple[str, str | None]:
    """Run one case: what happened to it, and the fault found if any."""
    c = Case(rng)
    arguments, outputs, reference = op(c)
    name = op.__name__
    binding = getattr(_cpu, name)
    _cpu.set_isa(rng.choice(("auto", "avx2", "scalar")))
    if rng.random() < 0.35:
        what = break_one(c, arguments)
        if binding(*arguments.values()) == 0:
            return "accepted", f"{describe(name, arguments)}: accepted, though {what} is broken"
        if not all(output.untouched() for output in outputs):
            return "refused", f"{describe(name, arguments)}: refused after writing"
        return "refused", None
    status = binding(*arguments.values())
    if status:
        return "refused", f"{describe(name, arguments)}: {_cpu.status_text(status)}"
    if not all(output.intact() for output in outputs):
        return "accepted", f"{describe(name, arguments)}: wrote outside its output"
    with fk.use_backend("reference"):
        for output, wanted in zip(outputs, reference(), strict=True):
            if not same(output.array, wanted):
                return "accepted", f"{describe(name, arguments)}: differs from the reference"
    return "accepted", None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this long")
    parser.add_argument("--cases", type=int, default=10**9, help="stop after so many cases")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    end = time.monotonic() + args.seconds
    counts: Counter[str] = Counter()
    faults = 0
    number = 0
    while number < args.cases and time.monotonic() < end and faults < 5:
        rng = random.Random(f"{args.seed}/{number}")
        op = OPS[number % len(OPS)]
        outcome, fault = one(op, rng)
        counts[outcome] += 1
        number += 1
        if fault:
            faults += 1
            print(f"case {args.seed}/{number - 1}: {fault}", flush=True)
    print(
        f"fuzz: {number} cases, {counts['accepted']} accepted and equal to the reference, "
        f"{counts['refused']} refused, {faults} faults"
    )
    return 1 if faults or not counts["accepted"] else 0


if __name__ == "__main__":
    sys.exit(main())
