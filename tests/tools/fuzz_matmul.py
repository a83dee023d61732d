"""Random good arguments of the matmul bindings, for fuzz_native.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

import fogzo_kernels as fk
from fogzo_kernels import _native

_cpu = _native.module("_cpu")
Prepared = tuple[dict[str, Any], list[Any], Callable[[], list[Any]]]


class Product:
    """x, codes, bias and a workspace for a Case, which stays alive as long as the arguments."""

    def __init__(self, c: Any) -> None:
        data = np.random.default_rng(c.rng.getrandbits(64))
        c.scale[c.scale > 1e30] = 1.0  # larger sums leave float32 in some order
        self.m = c.rng.choice((1, 2, 5, 6, 7, 9, 13, 70))
        self.sides = c.rng.choice((1, 2, 3))
        self.own_x = c.rng.random() < 0.5
        self.int8 = c.rng.random() < 0.5
        shape = (self.sides if self.own_x else 1, self.m, c.cols)
        self.x: Any = data.normal(0, 1, shape).astype(np.float32)
        self.x_scale: Any = None
        if self.int8:
            self.x = data.integers(-128, 128, shape).astype(np.int8)
            self.x_scale = data.uniform(0.01, 2, shape[:2]).astype(np.float32)
        self.bias = data.normal(0, 1, c.rows).astype(np.float32) if c.rng.random() < 0.5 else None
        far = c.rng.choice((0, 0, c.grid.levels // 4, c.grid.levels * 3 // 8))  # from either end
        codes = data.integers(far, c.grid.levels - far, (self.sides, c.rows, c.cols))
        self.codes = codes.astype(np.uint8)

    def call(self, c: Any, codes: Any) -> Any:
        x = self.x if self.own_x else self.x[0]
        scales = None if self.x_scale is None else self.x_scale if self.own_x else self.x_scale[0]
        return fk.probe_matmul(x, codes, c.public_scale(), c.grid, self.bias, x_scale=scales)

    def limit(self, c: Any) -> Any:
        """Rounding of K products, a scale, a bias and two results, of the sum of the sizes."""
        most = max(c.grid.v_max, -c.grid.v_min) * c.scale.max(axis=1)
        size = np.abs(self.x.astype(np.float64)).sum(-1)
        if self.x_scale is not None:
            size = size * self.x_scale
        bound = size[..., None] * np.broadcast_to(most, c.rows)
        bias = 0.0 if self.bias is None else np.abs(self.bias)
        shape = (self.sides, self.m, c.rows)
        return np.broadcast_to((c.cols + 8) * 2.0**-24 * (bound + bias), shape)


def _address(array: Any) -> int:
    return 0 if array is None else int(array.ctypes.data)


def probe_matmul(c: Any, guarded: Any, near: Any) -> Prepared:
    product = c.product = Product(c)
    packed = fk.pack(product.codes, c.grid.storage_bits)
    stored = packed.bits
    x_type = 2 if product.int8 else 0
    out = guarded((product.sides, product.m, c.rows), np.float32)
    x_sides = product.x.shape[0]
    size = _cpu.probe_matmul_workspace(
        x_sides, product.sides, product.m, c.rows, c.cols, c.scale_cols, x_type, stored, c.threads
    )
    workspace = c.workspace = guarded((size,), np.uint8)
    arguments = {
        "x": product.x.ctypes.data,
        "x_scale": _address(product.x_scale),
        "codes": packed.data.ctypes.data,
        "scale": c.scale.ctypes.data,
        "bias": _address(product.bias),
        "out": out.address,
        "workspace": workspace.address,
        "workspace_bytes": size,
        "x_sides": x_sides,
        "code_sides": product.sides,
        "m": product.m,
        "rows": c.rows,
        "cols": c.cols,
        "scale_rows": c.scale_rows,
        "scale_cols": c.scale_cols,
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "stored_bits": stored,
        "x_type": x_type,
        "threads": c.threads,
    }
    c.packed = packed
    return arguments, [out], lambda: [near(product.call(c, packed), product.limit(c))]


def probe_matmul_flips(c: Any, guarded: Any, near: Any) -> Prepared:
    product = c.product = Product(c)
    data = np.random.default_rng(c.rng.getrandbits(64))
    total = c.rows * c.cols
    count = min(total, c.rng.choice((0, 1, 3, total // 200, total // 10)))
    index = np.full((product.sides, count + 1), -1, np.int64)
    code = np.zeros((product.sides, count + 1), np.uint8)
    for side in range(product.sides):
        index[side, :count] = np.sort(data.choice(total, count, replace=False))
        code[side, :count] = data.integers(0, c.grid.levels, count)
    base = product.codes[0].copy()
    flips = c.flips = fk.Flips(base, index, code, np.full(product.sides, count, np.int64))
    x_type = 2 if product.int8 else 0
    out = guarded((product.sides, product.m, c.rows), np.float32)
    x_sides = product.x.shape[0]
    size = _cpu.probe_matmul_flips_workspace(
        x_sides, product.m, c.rows, c.cols, c.scale_cols, x_type, c.threads
    )
    workspace = c.workspace = guarded((size,), np.uint8)
    arguments = {
        "x": product.x.ctypes.data,
        "x_scale": _address(product.x_scale),
        "base": base.ctypes.data,
        "index": index.ctypes.data,
        "code": code.ctypes.data,
        "count": flips.count.ctypes.data,
        "capacity": count + 1,
        "scale": c.scale.ctypes.data,
        "bias": _address(product.bias),
        "out": out.address,
        "workspace": workspace.address,
        "workspace_bytes": size,
        "x_sides": x_sides,
        "code_sides": product.sides,
        "m": product.m,
        "rows": c.rows,
        "cols": c.cols,
        "scale_rows": c.scale_rows,
        "scale_cols": c.scale_cols,
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "x_type": x_type,
        "threads": c.threads,
    }
    return arguments, [out], lambda: [near(product.call(c, flips), 2 * product.limit(c))]


def quantize_activation(c: Any, guarded: Any) -> Prepared:
    codes, x_scale = guarded(c.shape, np.int8), guarded((c.rows,), np.float32)
    bits = c.rng.randint(1, 8)
    arguments = {
        "w": c.w.ctypes.data,
        "out": codes.address,
        "x_scale": x_scale.address,
        "rows": c.rows,
        "cols": c.cols,
        "code_bits": bits,
        "threads": c.threads,
    }
    return arguments, [codes, x_scale], lambda: list(fk.quantize_activation(c.w, bits))


BROKEN: dict[str, tuple[Any, ...]] = {
    "x": (0,),
    "codes": (0,),
    "base": (0,),
    "count": (0,),
    "index": (0,),
    "workspace": (0,),
    "workspace_bytes": (0, 63, -1),
    "x_sides": (-1, 2**62),
    "code_sides": (-1, 2**62),
    "m": (-1, 2**62),
    "capacity": (-1,),
    "x_type": (-1, 3),
    "code_bits": (0, -1, 9),
}
