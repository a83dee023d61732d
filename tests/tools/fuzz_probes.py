"""Random good arguments of the bindings that draw noise or read its flips, for fuzz_native.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz_case import FORMS, NOISES, SURROGATES, TABLE, Case, Guarded, Near, Prepared, sizes

import fogzo_kernels as fk

NO_GRID = 4
Part = tuple[dict[str, Any], list[Guarded], Any]


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
        "seed": c.seed,
        "step": c.step,
        "tensor": c.tensor,
        "probe": c.first_probe,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        u = fk.noise(c.shape, SURROGATES[c.surrogate], **c.draw("probe"))
        return [np.asarray(u)]

    return arguments, [out], reference


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


def _places(c: Case) -> dict[str, int]:
    return {"offset": c.offset, "row_pitch": c.row_pitch, "tensor": c.tensor}


def _mixing(c: Case) -> dict[str, Any]:
    draws = {"first_probe": c.first_probe, "seed": c.seed, "step": c.step}
    return {"probes": c.probes, **draws, "gamma": c.gamma, "norm": c.norm, "threads": c.threads}


def _ordered(names: str, *given: dict[str, Any]) -> dict[str, Any]:
    """The arguments in a binding's order."""
    found = {name: value for one in given for name, value in one.items()}
    return {name: found[name] for name in names.split()}


def _many(c: Case, part: Any) -> tuple[list[Any], Prepared]:
    """Up to three tensors of a call: their rows, and outputs and references put together."""
    for _ in range(c.rng.randrange(3)):
        c.join(Case(c.rng))
    parts = [part(one) for one in c.parts]
    outputs = [out for _, own, _ in parts for out in own]
    rows = [row for row, _, _ in parts]
    return rows, ({}, outputs, lambda: [want for *_, wanted in parts for want in wanted()])


def _perturbed(c: Case) -> Part:
    """The members of fogzo_tensor, in their order, with the outputs of one tensor."""
    rounded = c.rounded or c.form != 0
    sides = c.probes * c.sides
    width = (c.cols * c.grid.storage_bits + 7) // 8 if c.form == 2 else c.cols
    out = Guarded((sides, c.rows, width), np.float32 if c.form == 0 else np.uint8)
    flips = Guarded((sides,), np.int64)
    row = {
        "w": c.w.ctypes.data,
        "grad": c.grad.ctypes.data,
        "scale": c.scale.ctypes.data,
        "out": out.address,
        "flip_count": flips.address if rounded else 0,
        **sizes(c),
        **_places(c),
        "grid": c.grid.number if rounded else NO_GRID,
        "bits": c.grid.code_bits if rounded else 0,
        "surrogate": c.surrogate,
    }

    def reference() -> list[Any]:
        counts = np.zeros(sides, np.int64)
        result = fk.perturb_quantize(
            c.w,
            c.grad,
            c.public_scale(),
            c.grid if rounded else None,
            SURROGATES[c.surrogate],
            **c.draw(),
            probes=c.probes,
            gamma=c.gamma,
            norm=c.norm,
            form=FORMS[c.form],
            sides="both" if c.sides == 2 else "plus",
            flip_count=counts if rounded else None,
        )
        return [result.data if c.form == 2 else result, counts if rounded else None]

    return row, [out, flips], reference


def perturb_quantize(c: Case) -> Prepared:
    row, outputs, reference = _perturbed(c)
    names = (
        "w grad scale out flip_count table rows cols scale_rows scale_cols offset row_pitch grid "
        "bits surrogate noise form sides probes first_probe seed step tensor gamma norm threads"
    )
    shared = {"table": TABLE.ctypes.data, "noise": c.noise, "form": c.form, "sides": c.sides}
    return _ordered(names, row, shared, _mixing(c)), outputs, reference


def perturb_quantize_many(c: Case) -> Prepared:
    rows, (_, outputs, reference) = _many(c, _perturbed)
    shared = {"table": TABLE.ctypes.data, "noise": c.noise, "form": c.form, "sides": c.sides}
    return {"tensors": rows, **shared, **_mixing(c)}, outputs, reference


def _assembled(c: Case) -> Part:
    out = Guarded(c.shape, np.float32)
    row = {
        "no w": 0,
        "grad": c.grad.ctypes.data,
        "scale": c.scale.ctypes.data,
        "out": out.address,
        "no flip_count": 0,
        **sizes(c),
        **_places(c),
        "no grid": 0,
        "no bits": 0,
        "surrogate": c.surrogate,
    }

    def reference() -> list[Any]:
        args = (c.grad, c.public_scale(), c.differences, SURROGATES[c.surrogate])
        return [fk.assemble_gradient(*args, **c.draw(), gamma=c.gamma, norm=c.norm)]

    return row, [out], reference


def _sums(c: Case) -> dict[str, int]:
    return {"differences": c.differences.ctypes.data, "table": TABLE.ctypes.data, "noise": c.noise}


def assemble_gradient(c: Case) -> Prepared:
    row, outputs, reference = _assembled(c)
    names = (
        "grad scale differences out table rows cols scale_rows scale_cols offset row_pitch "
        "surrogate noise probes first_probe seed step tensor gamma norm threads"
    )
    return _ordered(names, row, _sums(c), _mixing(c)), outputs, reference


def assemble_gradient_many(c: Case) -> Prepared:
    rows, (_, outputs, reference) = _many(c, _assembled)
    return {"tensors": rows, **_sums(c), **_mixing(c)}, outputs, reference


def find_flips(c: Case) -> Prepared:
    """Sides that differ from their base here and there, and now and then less room than flips."""
    data = np.random.default_rng(c.rng.getrandbits(64))
    sides, elements = c.probes * c.sides, c.rows * c.cols
    base = c.codes = data.integers(0, c.grid.levels, elements).astype(np.uint8)
    changed = data.random((sides, elements)) < c.rng.choice((0.0, 0.001, 0.1, 1.0))
    codes = c.bytes = np.where(changed, data.integers(0, 256, changed.shape), base).astype(np.uint8)
    differ = codes != base
    most = int(differ.sum(1).max(initial=0))
    capacity = c.rng.choice((1, most + 1, most + 9, max(most // 2, 1)))
    index, code = Guarded((sides, capacity), np.int64), Guarded((sides, capacity), np.uint8)
    count = Guarded((sides,), np.int64)
    arguments = {
        "base": base.ctypes.data,
        "codes": codes.ctypes.data,
        "index": index.address,
        "code": code.address,
        "count": count.address,
        "code_sides": sides,
        "side_elements": elements,
        "capacity": capacity,
        "threads": c.threads,
    }

    def wanted() -> list[Any]:
        numbers = np.full((sides, capacity), -1, np.int64)
        new = np.zeros((sides, capacity), np.uint8)
        for side in range(sides):
            found = np.flatnonzero(differ[side])[:capacity]
            numbers[side, : len(found)] = found
            new[side, : len(found)] = codes[side, found]
        return [numbers, new, differ.sum(1)]

    return arguments, [index, code, count], wanted
