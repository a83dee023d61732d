"""The public call by which each kernel of the launch table is tuned."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

Call = Callable[[], torch.Tensor]
GRID, SIGN = fk.Grid("mid-rise", 2), fk.Grid("sign")
DTYPES = {"int8": "int8", "half": "bfloat16", "float32": "float32", "float8": "float8_e4m3fn"}
WHERE: Any = {"seed": 1, "step": 2, "tensor": 3}


def calls(
    device: Any, rows: int = 8192, columns: int = 16384, tokens: int = 8192, features: int = 4096
) -> dict[str, Callable[[], Call]]:
    """By kernel, what makes the public call that it is tuned for.

    A call returns the array that other blocks must not change. A kernel that runs behind another
    one (a total, a sum of parts) is timed with it.

    Args:
        rows, columns: of the weights. tokens, features: of the activations.
    """
    found = Calls(device, rows, columns, tokens, features)
    made: dict[str, Callable[[], Call]] = {
        "noise": found.noise,
        "perturb_quantize": lambda: found.perturbed(GRID, "clipped"),
        "perturb_quantize.tanh": lambda: found.perturbed(SIGN, "tanh"),
        "count_flips": found.flips,
        "find_flips": found.flips,
        "assemble_gradient": found.assembled,
        "whitened_norm_part": found.norm,
        "whitened_norm_total": found.norm,
        "quantize": found.quantized,
        "dequantize": found.dequantized,
        "fake_quantize": found.fake,
        "fake_quantize_backward": lambda: found.backward(0),
        "scale_gradient": lambda: found.backward(1),
        "compute_scale": lambda: found.scale("channel"),
        "total_scale": lambda: found.scale("tensor"),
        "pack": found.packed,
        "unpack": found.unpacked,
        "hadamard.blocks": lambda: found.rotation(128),
        "hadamard.runs": lambda: found.rotation(columns),
        "hadamard_quantize": found.rotated_codes,
        "quantize_activation": lambda: found.activation(8),
        "quantize_activation.sign": lambda: found.activation(1),
        "probe_matmul.operands": lambda: found.product("group", "int8", 8),
        "probe_matmul.sum": lambda: found.product("sum", "int8", 8),
        "probe_matmul.flips": lambda: found.product("flips", "int8", tokens),
    }
    for size, (row, dtype) in itertools.product(("few", "many", "group"), DTYPES.items()):
        m = 8 if size == "few" else tokens
        made[f"probe_matmul.{size}.{row}"] = lambda s=size, d=dtype, m=m: found.product(s, d, m)  # type: ignore
    return made


class Calls:
    """Makes calls into outputs that they write again each time."""

    def __init__(self, device: Any, rows: int, columns: int, tokens: int, features: int) -> None:
        self._device, self._rows, self._columns = device, rows, columns
        self._tokens, self._features = tokens, features

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(shape or (self._rows, self._columns), device=self._device)

    def _empty(self, dtype: torch.dtype = torch.float32) -> Tensor:
        return torch.empty(self._rows, self._columns, dtype=dtype, device=self._device)

    def _scale(self) -> Tensor:
        return torch.rand(self._rows, 1, device=self._device) + 0.5

    def noise(self) -> Call:
        out = self._empty()
        return lambda: fk.noise(out.shape, "clipped", **WHERE, probe=0, out=out)

    def perturbed(self, grid: fk.Grid, surrogate: str) -> Call:
        w, grad, scale = self._random(), self._random(), self._scale()
        named: Any = {**WHERE, "gamma": 0.5, "norm": 1e3, "form": "packed"}
        out = fk.perturb_quantize(w, grad, scale, grid, surrogate, **named)
        return lambda: fk.perturb_quantize(w, grad, scale, grid, surrogate, out=out, **named).data

    def flips(self) -> Call:
        w, grad, scale = self._random(), self._random(), self._scale()
        named: Any = {**WHERE, "gamma": 1e-3, "norm": 1e3, "form": "flips"}
        out = fk.perturb_quantize(w, grad, scale, GRID, **named)
        return lambda: fk.perturb_quantize(w, grad, scale, GRID, out=out, **named).index

    def assembled(self) -> Call:
        grad, scale, out = self._random(), self._scale(), self._empty()
        differences = self._random(1)
        named: Any = {**WHERE, "gamma": 0.5, "norm": 1e3, "out": out}
        return lambda: fk.assemble_gradient(grad, scale, differences, "clipped", **named)

    def norm(self) -> Call:
        grad, scale, out = self._random(), self._scale(), torch.zeros((), device=self._device)
        return lambda: fk.whitened_norm([grad], [scale], "clipped", out=out)

    def quantized(self) -> Call:
        w, scale, out = self._random(), self._scale(), self._empty(torch.uint8)
        return lambda: fk.quantize(w, scale, GRID, out=out)

    def dequantized(self) -> Call:
        w, scale, out = self._random(), self._scale(), self._empty()
        codes = fk.quantize(w, scale, GRID)
        return lambda: fk.dequantize(codes, scale, GRID, out=out)

    def fake(self) -> Call:
        w, scale, out = self._random(), self._scale(), self._empty()
        return lambda: fk.fake_quantize(w, scale, GRID, out=out)

    def backward(self, which: int) -> Call:
        """grad_w (0) or the gradient of the scales (1)."""
        grad, w, scale = self._random(), self._random(), self._scale()
        return lambda: fk.fake_quantize_backward(grad, w, scale, GRID)[which]

    def scale(self, granularity: str) -> Call:
        w = self._random()
        return lambda: fk.compute_scale(w, GRID, "fixed", granularity)

    def packed(self) -> Call:
        codes = fk.quantize(self._random(), self._scale(), GRID)
        out = fk.pack(codes, 2)
        return lambda: fk.pack(codes, 2, out=out).data

    def unpacked(self) -> Call:
        packed = fk.pack(fk.quantize(self._random(), self._scale(), GRID), 2)
        out = self._empty(torch.uint8)
        return lambda: fk.unpack(packed, out=out)

    def rotation(self, block: int) -> Call:
        x, out = self._random(), self._empty()
        return lambda: fk.hadamard(x, block, out=out)

    def rotated_codes(self) -> Call:
        w = self._random()
        return lambda: fk.hadamard_quantize(w, GRID)[0]

    def activation(self, bits: int) -> Call:
        x = self._random(self._tokens, self._features)
        return lambda: fk.quantize_activation(x, bits)[0]

    def product(self, size: str, dtype: str, m: int) -> Call:
        """Two sides that share x [m, k]; "sum": few columns of many terms, so that K is split."""
        n = k = self._features
        if size == "sum":
            n, k = n // 8, 4 * k
        device = self._device
        codes = torch.randint(0, 4, (2, n, k), dtype=torch.uint8, device=device)
        groups = (max(2, k // 64), 1) if size == "group" else (1,)
        scale = torch.rand((n, *groups), device=device) + 0.5
        x = self._random(m, k)
        x_scale = torch.ones(m, device=device) if dtype in ("int8", "float8_e4m3fn") else None
        x = (x * 30).to(torch.int8) if dtype == "int8" else x.to(getattr(torch, dtype))
        given: Any = fk.pack(codes, 2)
        if size == "flips":
            index = torch.arange(0, n * k, 9973, device=device)
            count = torch.tensor([len(index)] * 2, device=device)
            new = (codes[0].reshape(-1)[index] + 1) % 4
            given = fk.Flips(codes[0], torch.stack([index] * 2), torch.stack([new] * 2), count)
        out = torch.empty((2, m, n), device=device, dtype=x.dtype if x_scale is None else None)
        return lambda: fk.probe_matmul(x, given, scale, GRID, x_scale=x_scale, out=out)
