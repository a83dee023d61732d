"""Call the public operations with arrays of any kind, strides and addresses, and outputs likewise.

A call is either refused by an error that names the operation, having written nothing, or equals
the reference on plain copies of its inputs, which it leaves alone, as it does the bytes around its
output.

usage: fuzz_ops.py [--seconds S] [--cases N] [--seed K]
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).parent))

from fuzz_lot import FILL, PLAIN, Lot

import fogzo_kernels as fk
from fogzo_kernels import _native


def scale(lot: Lot) -> Any:
    cols = math.prod(lot.shape) // max(lot.rows, 1)
    shapes: list[tuple[int, ...]] = [(), (lot.rows, 1)]
    if cols and cols % 3 == 0:
        shapes.append((lot.rows, 3, 1))
    return lot.take(np.float32(lot.data.uniform(0.3, 2, lot.rng.choice(shapes))))


def coordinates(lot: Lot) -> dict[str, Any]:
    return {
        "seed": lot.rng.getrandbits(64),
        "step": lot.rng.getrandbits(32),
        "tensor": lot.rng.randrange(9),
        "offset": lot.rng.choice((0, 7, 2**32 + 5)),
        "row_pitch": lot.rng.choice((None, 150)),
        "gamma": lot.rng.random(),
        "norm": 2.0,
    }


Call = tuple[tuple[Any, ...], dict[str, Any], Any]


def quantize(lot: Lot) -> Call:
    w = lot.take(lot.numbers(lot.shape))
    return (w, scale(lot), lot.grid), {}, lot.output(lot.shape, np.uint8)


def fake_quantize(lot: Lot) -> Call:
    w = lot.take(lot.numbers(lot.shape))
    return (w, scale(lot), lot.grid), {}, lot.output(lot.shape, np.float32)


def dequantize(lot: Lot) -> Call:
    codes = lot.take(lot.data.integers(0, lot.grid.levels, lot.shape).astype(np.uint8))
    return (codes, scale(lot), lot.grid), {}, lot.output(lot.shape, np.float32)


def hadamard(lot: Lot) -> Call:
    x = lot.take(lot.numbers(lot.shape))
    return (x, lot.rng.choice((1, 8, 128))), {}, lot.output(lot.shape, np.float32)


def perturb_quantize(lot: Lot) -> Call:
    w, grad = lot.take(lot.numbers(lot.shape)), lot.take(lot.numbers(lot.shape))
    form = lot.rng.choice(("values", "codes"))
    named = {**coordinates(lot), "probes": lot.rng.choice((1, 3)), "form": form}
    shape = (2 * named["probes"], *lot.shape)
    out = lot.output(shape, np.float32 if form == "values" else np.uint8)
    named["flip_count"] = lot.output(shape[:1], np.int64)
    return (w, grad, scale(lot), lot.grid), named, out


def assemble_gradient(lot: Lot) -> Call:
    grad, a = lot.take(lot.numbers(lot.shape)), scale(lot)
    differences = lot.place(lot.numbers((2,)), PLAIN)
    out = lot.output(lot.shape, np.float32)
    return (grad, a, differences, "clipped"), coordinates(lot), out


def pack(lot: Lot) -> Call:
    bits = lot.grid.storage_bits
    codes = lot.take(lot.data.integers(0, lot.grid.levels, lot.shape).astype(np.uint8))
    data = lot.output((*lot.shape[:-1], -(-lot.shape[-1] * bits // 8)), np.uint8)
    return (codes, bits), {}, data if data is None else fk.Packed(data, bits, lot.shape)


def fake_quantize_backward(lot: Lot) -> Call:
    grad, w = lot.take(lot.numbers(lot.shape)), lot.take(lot.numbers(lot.shape))
    surrogate = "hardtanh" if lot.grid.kind == "sign" else lot.rng.choice(("identity", "clipped"))
    named: dict[str, Any] = {"needs_scale_grad": False}  # whose sum has an order of its own
    if surrogate == "clipped":
        named["limit"] = lot.rng.choice((None, 0.99, 3.0))
    return (grad, w, scale(lot), lot.grid, surrogate), named, lot.output(lot.shape, np.float32)


def whitened_norm(lot: Lot) -> Call:
    grads = [lot.take(lot.numbers(lot.shape)) for _ in range(2)]
    scales = [scale(lot) for _ in grads]
    # Two units in the last place: e <= 1, and no gradient is larger than 6.
    lot.limit = 2.0**-22 * 6 * 2 * math.sqrt(2 * math.prod(lot.shape))
    return (grads, scales, "clipped"), {}, lot.output((), np.float32)


def probe_matmul(lot: Lot) -> Call:
    n, k = lot.rng.choice(((1, 1), (3, 5), (17, 33), (16, 128), (0, 4)))
    sides: tuple[int, ...] = lot.rng.choice(((), (3,)))
    kind = lot.rng.choice((None, fk.Packed, fk.Flips))
    lot.shape, lot.rows, m = (n, k), n, lot.rng.choice((1, 4, 9))
    codes = _flips(lot, 3) if kind is fk.Flips else _codes(lot, (*sides, n, k), kind is fk.Packed)
    own: tuple[int, ...] = lot.rng.choice(((), (3,)))  # an x for each side
    x: Any = lot.numbers((*own, m, k))
    named: dict[str, Any] = {}
    if lot.rng.random() < 0.5:
        x = lot.data.integers(-128, 128, x.shape).astype(np.int8)
        named["x_scale"] = lot.take(lot.data.uniform(0.1, 2, (*own, m)).astype(np.float32))
    if lot.rng.random() < 0.5:
        named["bias"] = lot.take(lot.numbers((n,)))
    args = (lot.take(x), codes, scale(lot), lot.grid)
    # K products, a scale, a bias and a result are rounded, of Flips also what is added; no scale is
    # larger than 2, of x nor of w, and no bias than 6.
    most = np.abs(x.astype(np.float64)).sum(-1).max(initial=0) * 4 * max(-lot.grid.v_min, 1)
    lot.limit = (k + 8) * 2.0**-23 * (most + 6) * (2 if kind is fk.Flips else 1)
    p = 3 if own or sides or kind is fk.Flips else 1
    return args, named, lot.output((p, m, n), np.float32)


def _codes(lot: Lot, shape: tuple[int, ...], packed: bool) -> Any:
    far = lot.rng.choice((0, 0, lot.grid.levels // 4, lot.grid.levels * 3 // 8))  # from either end
    drawn = lot.data.integers(far, lot.grid.levels - far, shape).astype(np.uint8)
    if not packed:
        return lot.take(drawn)
    found = fk.pack(drawn, lot.grid.storage_bits)
    return fk.Packed(lot.take(found.data), found.bits, shape)


def _flips(lot: Lot, sides: int) -> fk.Flips:
    """Of a weight of lot.shape: some of its elements on each side, ascending, and spare room."""
    size = math.prod(lot.shape)
    count = [lot.rng.randrange(min(size, 7) + 1) for _ in range(sides)]
    room = max(count) + lot.rng.randrange(2)
    index, code = np.full((sides, room), -1, np.int64), np.zeros((sides, room), np.uint8)
    for side, found in enumerate(count):
        index[side, :found] = np.sort(lot.data.choice(size, found, replace=False)) if found else ()
        code[side, :found] = lot.data.integers(0, lot.grid.levels, found)
    arrays = index, code, np.array(count)
    return fk.Flips(_codes(lot, lot.shape, packed=False), *map(lot.take, arrays))


OPS: tuple[Callable[[Lot], Call], ...] = (
    quantize,
    fake_quantize,
    dequantize,
    hadamard,
    perturb_quantize,
    assemble_gradient,
    pack,
    fake_quantize_backward,
    whitened_norm,
    probe_matmul,
)


def plain(value: Any) -> Any:
    """A copy as a NumPy array in ordinary memory, also in lists, Packed and Flips; else itself."""
    if isinstance(value, torch.Tensor):
        return value.clone().numpy().copy()
    if isinstance(value, list):
        return [plain(one) for one in value]
    if isinstance(value, (fk.Packed, fk.Flips)):
        return replace(value, **{f.name: plain(getattr(value, f.name)) for f in fields(value)})
    return value.copy() if isinstance(value, np.ndarray) else value


def equal(got: Any, want: Any, limit: float = 0.0) -> bool:
    if isinstance(got, fk.Packed):
        return (got.bits, got.shape) == (want.bits, want.shape) and equal(got.data, want.data)
    if isinstance(got, tuple):
        return all(map(equal, got, want))
    if got is None or want is None:
        return got is want
    a, b = np.ascontiguousarray(plain(got)), np.ascontiguousarray(plain(want))
    if a.dtype != b.dtype or a.shape != b.shape:
        return False
    if limit:
        return bool((np.abs(a.astype(np.float64) - b) <= limit).all())
    return a.tobytes() == b.tobytes()


def one(op: Callable[[Lot], Call], rng: random.Random) -> tuple[str, str | None]:
    """Make one call: what happened to it, and the fault found if any."""
    lot = Lot(rng)
    args, named, out = op(lot)
    name = op.__name__
    public = getattr(fk, name)
    what = f"{name} of {lot.shape}, {lot.grid}, torch={lot.torch}, {named}, out={out is not None}"
    copies = [plain(value) for value in args]
    try:
        got = public(*args, **named, out=out)
    except (ValueError, TypeError) as error:
        if not lot.broken:
            return "refused", f"{what}: {error}"
        if not str(error).startswith(f"{name}: ") or ", expected " not in str(error):
            return "refused", f"{what}: the error is {error}"
        if any((raw != FILL).any() for raw, _ in lot.memory):
            return "refused", f"{what}: refused after writing"
        return "refused", None
    if lot.broken:
        return "accepted", f"{what}: accepted, though an array is broken"
    for raw, inside in lot.memory:
        around = np.delete(raw, np.r_[inside])
        if (around != FILL).any():
            return "accepted", f"{what}: wrote outside its output"
    if not all(equal(array, held) for array, held in lot.inputs):
        return "accepted", f"{what}: wrote to an input"
    again = {key: plain(value) for key, value in named.items()}
    with fk.use_backend("reference"):
        want = public(*copies, **again)
    counts = named.get("flip_count"), again.get("flip_count")
    if not (equal(got, want, lot.limit) and equal(*counts)):
        return "accepted", f"{what}: differs from the reference"
    return "accepted", None


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--seconds", type=float, default=60.0, help="stop after this long")
    parser.add_argument("--cases", type=int, default=10**9, help="stop after so many cases")
    parser.add_argument("--seed", type=int, default=0)
    args = parser.parse_args()
    end, number, counts, faults = time.monotonic() + args.seconds, 0, Counter[str](), 0
    while number < args.cases and time.monotonic() < end and faults < 5:
        rng = random.Random(f"{args.seed}/{number}")
        _native.cpu().set_isa(rng.choice(("auto", "avx2", "scalar")))
        outcome, fault = one(OPS[number % len(OPS)], rng)
        counts[outcome] += 1
        if fault:
            faults += 1
            print(f"case {args.seed}/{number}: {fault}", flush=True)
        number += 1
    print(
        f"fuzz: {number} calls, {counts['accepted']} accepted and equal to the reference, "
        f"{counts['refused']} refused, {faults} faults"
    )
    return 1 if faults or not counts["accepted"] else 0


if __name__ == "__main__":
    sys.exit(main())
