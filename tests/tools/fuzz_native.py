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

import fuzz_codes
import fuzz_matmul
import fuzz_probes
from fuzz_case import Case, Near, Prepared

import fogzo_kernels as fk
from fogzo_kernels import _native

_cpu = _native.module("_cpu")


OPS: tuple[Callable[[Case], Prepared], ...] = (
    fuzz_probes.noise,
    fuzz_codes.quantize,
    fuzz_codes.dequantize,
    fuzz_codes.pack,
    fuzz_codes.unpack,
    fuzz_codes.hadamard,
    fuzz_codes.hadamard_quantize,
    fuzz_codes.compute_scale,
    fuzz_codes.fake_quantize,
    fuzz_codes.fake_quantize_backward,
    fuzz_probes.whitened_norm,
    fuzz_probes.perturb_quantize,
    fuzz_probes.perturb_quantize_many,
    fuzz_probes.assemble_gradient,
    fuzz_probes.assemble_gradient_many,
    fuzz_probes.find_flips,
    fuzz_matmul.probe_matmul,
    fuzz_matmul.probe_matmul_flips,
    fuzz_matmul.quantize_activation,
)
NEVER_EMPTY = (fuzz_matmul.probe_matmul_flips,)
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
    "elements": (-1, 2**62),
    "side_elements": (-1,),
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
    if got.dtype == np.uint16:
        got = fuzz_matmul.floats(got)
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
    if "tensors" in arguments and c.rng.random() < 0.6:  # a call for many, by its rows
        which = c.rng.randrange(len(c.parts))
        return break_one(c.parts[which], arguments["tensors"][which])
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


def called(binding: Callable[..., int], arguments: dict[str, Any]) -> int:
    """The status of a call; the tensors of a call for many are rows of numbers."""
    rows = [tuple(row.values()) for row in arguments.get("tensors", ())]
    return binding(*{**arguments, **({"tensors": rows} if rows else {})}.values())


def one(op: Callable[[Case], Prepared], rng: random.Random) -> tuple[str, str | None]:
    """Run one case: what happened to it, and the fault found if any."""
    c = Case(rng, may_be_empty=op not in NEVER_EMPTY)
    arguments, outputs, reference = op(c)
    name = op.__name__
    binding = getattr(_cpu, name)
    _cpu.set_isa(rng.choice(("auto", "avx2", "scalar")))
    if not c.empty and rng.random() < 0.35:
        what = break_one(c, arguments)
        if called(binding, arguments) == 0:
            return "accepted", f"{describe(name, arguments)}: accepted, though {what} is broken"
        if not all(output.untouched() for output in outputs):
            return "refused", f"{describe(name, arguments)}: refused after writing"
        return "refused", None
    status = called(binding, arguments)
    if status:
        return "refused", f"{describe(name, arguments)}: {_cpu.status_text(status)}"
    if not all(output.intact() for output in outputs):
        return "accepted", f"{describe(name, arguments)}: wrote outside its output"
    with fk.use_backend("reference"):
        for output, wanted in zip(outputs, reference(), strict=True):
            right = output.untouched() if wanted is None else same(output.array, wanted)
            if not right:
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
