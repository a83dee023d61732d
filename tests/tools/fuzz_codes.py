"""Random good arguments of the bindings on codes, values and rotations, for fuzz_native.py."""

from __future__ import annotations

from typing import Any

import numpy as np
from fuzz_case import SURROGATES, Case, Guarded, Near, Prepared, rounding, sizes

import fogzo_kernels as fk
from fogzo_kernels._scale import multiple, rule_of


def quantize(c: Case) -> Prepared:
    out = Guarded(c.shape, np.uint8)
    return rounding(c, out), [out], lambda: [fk.quantize(c.w, c.public_scale(), c.grid)]


def dequantize(c: Case) -> Prepared:
    arguments, _, codes = quantize(c)
    c.codes = codes()[0]
    out = Guarded(c.shape, np.float32)
    arguments = {**arguments, "w": c.codes.ctypes.data, "out": out.address}
    return arguments, [out], lambda: [fk.dequantize(c.codes, c.public_scale(), c.grid)]


def pack(c: Case) -> Prepared:
    c.codes = fk.quantize(c.w, c.public_scale(), c.grid)
    width = c.grid.storage_bits
    out = Guarded((c.rows, (c.cols * width + 7) // 8), np.uint8)
    arguments = {
        "w": c.codes.ctypes.data,
        "out": out.address,
        "rows": c.rows,
        "cols": c.cols,
        "stored_bits": width,
        "threads": c.threads,
    }
    return arguments, [out], lambda: [fk.pack(c.codes, c.grid.code_bits).data]


def unpack(c: Case) -> Prepared:
    arguments, _, packed = pack(c)
    c.bytes = packed()[0]
    out = Guarded(c.shape, np.uint8)
    arguments = {**arguments, "w": c.bytes.ctypes.data, "out": out.address}
    return arguments, [out], lambda: [c.codes]


def fake_quantize(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    return rounding(c, out), [out], lambda: [fk.fake_quantize(c.w, c.public_scale(), c.grid)]


def fake_quantize_backward(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    scales = Guarded(c.scale.shape, np.float32)
    if SURROGATES[c.surrogate] == "tanh":  # its slope may be 0 in one of both, times infinity
        c.grad[~np.isfinite(c.grad)] = 1.0
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
        if not c.w.size:
            return [grad_w, None]
        most = max(abs(c.grid.v_min), abs(c.grid.v_max), 1)  # no t is larger
        terms = np.abs(c.grad.astype(np.float64)).reshape(c.scale.size, -1).sum(1) * most
        rounding = terms.reshape(grad_scale.shape) * c.grad.size * 2.0**-52
        if name == "tanh":
            grad_w = Near(grad_w, np.abs(c.grad.astype(np.float64)) * 2.0**-21)
        return [grad_w, Near(grad_scale, rounding)]

    return arguments, [out, scales], reference


def hadamard(c: Case) -> Prepared:
    out = Guarded(c.shape, np.float32)
    block = c.rng.choice((1, 2, 4, 16, 128, 2048))
    arguments = {
        "w": c.w.ctypes.data,
        "out": out.address,
        "rows": c.rows,
        "cols": c.cols,
        "block": block,
        "threads": c.threads,
    }
    return arguments, [out], lambda: [fk.hadamard(c.w, block)]


def hadamard_quantize(c: Case) -> Prepared:
    """By the scale that it finds itself, and that within one unit of the reference's."""
    c.w[~(abs(c.w) < 1e30)] = 1.0
    codes, scale = Guarded(c.shape, np.uint8), Guarded((c.rows, 1), np.float32)
    arguments = {
        "w": c.w.ctypes.data,
        "values": 0,
        "codes": codes.address,
        "out": scale.address,
        "rows": c.rows,
        "cols": c.cols,
        "multiple": multiple(c.grid),
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        if not c.w.size:
            return [None, None]
        exact = fk.hadamard_quantize(c.w, c.grid)[1]
        return [
            fk.quantize(fk.hadamard(c.w), scale.array, c.grid),
            Near(exact, np.zeros(exact.shape)),
        ]

    return arguments, [codes, scale], reference


def compute_scale(c: Case) -> Prepared:
    c.w[~(abs(c.w) < 1e30)] = 1.0
    out = Guarded(c.scale.shape, np.float32)
    rules = ("fixed", "absmean", "absmax", "lsq", "stretched")
    by_mean = c.grid.kind in ("sign", "ternary")
    rule = c.rng.choice([r for r in rules if by_mean or r != "absmean"])
    scales = c.scale.size
    arguments = {
        "w": c.w.ctypes.data,
        "out": out.address,
        "scales": scales,
        "elements": c.w.size // scales if scales else c.cols,
        **rule_of(c.grid, rule)._asdict(),
        "threads": c.threads,
    }

    def reference() -> list[Any]:
        if not c.w.size:
            return [None]
        size = c.cols // c.scale_cols if c.scale_cols > 1 else None
        kind = "tensor" if scales == 1 else "channel" if size is None else "group"
        exact = np.asarray(fk.compute_scale(c.w, c.grid, rule, kind, size))
        return [Near(exact, np.zeros(exact.shape))]

    return arguments, [out], reference
