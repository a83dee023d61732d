"""quantize_activation of one batch: int8 codes and a scale a row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _device, peers
from ._options import BenchError, Options, sizes
from ._plain import run_plain
from ._report import Result

TESTS = ("test_quantize_activation.py",)
ABOUT = "int8 activations with a scale a row"
TAKES = {"shape": "M x K", "dtype": "float32, bfloat16", "backend": ""}
SIZE = (2048, 768)
GPU_SIZE = (32768, 4096)
BITS = 8


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options)]


def run(options: Options) -> Result:
    """Measure into tensors that are there; compiled code may round a code to its neighbour."""
    size = sizes("quantize_activation", options.shape, _device.pick(SIZE, GPU_SIZE))
    if len(size) != 2:
        raise BenchError("quantize_activation: --shape has 3 sizes, expected 2 as in 2048x768", 2)
    dtype = options.dtype or "float32"
    if dtype == "int8":
        raise BenchError("quantize_activation: --dtype int8, expected float32 or bfloat16", 2)
    x = torch.randn(size, generator=_device.generator())
    x = x.to(torch.bfloat16 if dtype == "bfloat16" else torch.float32)
    out = (torch.empty(size, dtype=torch.int8), torch.empty(size[:1]))

    def ours() -> tuple[Tensor, Tensor]:
        found: tuple[Tensor, Tensor] = fk.quantize_activation(x, BITS, out=out)
        return found

    theirs = {
        **peers.activation_quantizers(x, options.compiled),
        **options.users("quantize_activation", x=x, bits=BITS),
    }
    return run_plain(
        "quantize_activation",
        options,
        ours,
        theirs,
        shape={"size": list(size), "x": dtype, "bits": BITS},
        moved=x.numel() * (x.element_size() + 1) + 4 * size[0],
        most=1 / 127,
    )
