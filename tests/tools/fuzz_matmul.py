"""Random good arguments of the matmul bindings, for fuzz_native.py."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from fuzz_case import Case, Guarded, Near, Prepared, sizes

import fogzo_kernels as fk
from fogzo_kernels import _native

_cpu = _native.module("_cpu")
X_TYPES = ("float32", "bfloat16", "int8")


class Product:
    """x, codes, bias and a workspace for a Case, which stays alive as long as the arguments."""

    def __init__(self, c: Case, *x_types: str) -> None:
        data = np.random.default_rng(c.rng.getrandbits(64))
        c.scale[c.scale > 1e30] = 1.0  # larger sums leave float32 in some order
        self.m = c.m = c.rng.choice((1, 2, 5, 6, 7, 9, 13, 70))
        if c.rng.random() < 0.03:
            self.m = c.m = 0
        self.sides = c.rng.choice((1, 2, 3))
        self.own_x = c.rng.random() < 0.5
        self.x_type = c.rng.choice(x_types)
        shape = (self.sides if self.own_x else 1, self.m, c.cols)
        self.x: Any = data.normal(0, 1, shape).astype(np.float32)
        self.x_scale: Any = None
        if self.x_type == "bfloat16":  # its bits
            self.x = (self.x.view(np.uint32) >> 16).astype(np.uint16)
        if self.x_type == "int8":
            self.x = data.integers(-128, 128, shape).astype(np.int8)
            self.x_scale = data.uniform(0.01, 2, shape[:2]).astype(np.float32)
        self.bias = data.normal(0, 1, c.rows).astype(np.float32) if c.rng.random() < 0.5 else None
        far = c.rng.choice((0, 0, c.grid.levels // 4, c.grid.levels * 3 // 8))  # from either end
        codes = data.integers(far, c.grid.levels - far, (self.sides, c.rows, c.cols))
        self.codes = codes.astype(np.uint8)

    def call(self, c: Case, codes: Any) -> Any:
        given = {"x": self.x, "x_scale": self.x_scale}
        if not self.own_x:
            given = {name: None if one is None else one[0] for name, one in given.items()}
        args = codes, c.public_scale(), c.grid, self.bias
        if self.x_type != "bfloat16":
            return fk.probe_matmul(given["x"], *args, x_scale=given["x_scale"])
        x = torch.from_numpy(given["x"].view(np.int16)).view(torch.bfloat16)
        data = fk.Packed(torch.from_numpy(codes.data), codes.bits, codes.shape)
        scale, bias = (None if a is None else torch.from_numpy(np.asarray(a)) for a in args[1::2])
        return fk.probe_matmul(x, data, scale, c.grid, bias).float().numpy()

    def near(self, c: Case, codes: Any, times: int = 1) -> Near:
        """Rounding of K products, a scale, a bias and two results, of the sum of the sizes."""
        value = self.call(c, codes)
        most = max(c.grid.v_max, -c.grid.v_min) * c.scale.max(axis=1, initial=0)
        x = floats(self.x) if self.x_type == "bfloat16" else self.x
        size = np.abs(x.astype(np.float64)).sum(-1)
        if self.x_scale is not None:
            size = size * self.x_scale
        bound = size[..., None] * np.broadcast_to(most, c.rows)
        bias = 0.0 if self.bias is None else np.abs(self.bias)
        limit = times * (c.cols + 8) * 2.0**-24 * np.broadcast_to(bound + bias, value.shape)
        return Near(value, limit + (np.abs(value) * 2.0**-7 if self.x_type == "bfloat16" else 0))

    def out(self, c: Case) -> Guarded:
        shape = (self.sides, self.m, c.rows)
        return Guarded(shape, np.uint16 if self.x_type == "bfloat16" else np.float32)


def floats(bits: Any) -> Any:
    """bfloat16 as float32."""
    return (bits.astype(np.uint32) << 16).view(np.float32)


def _address(array: Any) -> int:
    return 0 if array is None else int(array.ctypes.data)


def probe_matmul(c: Case) -> Prepared:
    product = Product(c, *X_TYPES)
    packed = fk.pack(product.codes, c.grid.storage_bits)
    stored = packed.bits
    x_type = X_TYPES.index(product.x_type)
    out = product.out(c)
    x_sides = product.x.shape[0]
    size = _cpu.probe_matmul_workspace(
        x_sides, product.sides, product.m, c.rows, c.cols, c.scale_cols, x_type, stored, c.threads
    )
    workspace = Guarded((size,), np.uint8)
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
        **sizes(c),
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "stored_bits": stored,
        "x_type": x_type,
        "threads": c.threads,
    }
    c.kept += product, packed, workspace
    return arguments, [out], lambda: [product.near(c, packed)]


def probe_matmul_flips(c: Case) -> Prepared:
    product = Product(c, "float32", "int8")
    data = np.random.default_rng(c.rng.getrandbits(64))
    total = c.rows * c.cols
    count = min(total, c.rng.choice((0, 1, 3, total // 200, total // 10)))
    index = np.full((product.sides, count + 1), -1, np.int64)
    code = np.zeros((product.sides, count + 1), np.uint8)
    for side in range(product.sides):
        index[side, :count] = np.sort(data.choice(total, count, replace=False))
        code[side, :count] = data.integers(0, c.grid.levels, count)
    base = product.codes[0].copy()
    flips = fk.Flips(base, index, code, np.full(product.sides, count, np.int64))
    x_type = X_TYPES.index(product.x_type)
    out = product.out(c)
    x_sides = product.x.shape[0]
    size = _cpu.probe_matmul_flips_workspace(
        x_sides, product.m, c.rows, c.cols, c.scale_cols, x_type, c.threads
    )
    workspace = Guarded((size,), np.uint8)
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
        **sizes(c),
        "grid": c.grid.number,
        "bits": c.grid.code_bits,
        "x_type": x_type,
        "threads": c.threads,
    }
    c.kept += product, flips, workspace
    return arguments, [out], lambda: [product.near(c, flips, 2)]


def quantize_activation(c: Case) -> Prepared:
    codes, x_scale = Guarded(c.shape, np.int8), Guarded((c.rows,), np.float32)
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
