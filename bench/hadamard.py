"""hadamard of blocks of 128 along the rows of one matrix."""

from __future__ import annotations

from collections.abc import Callable

import torch

import fogzo_kernels as fk

from . import _device, peers
from ._options import BenchError, Options, sizes
from ._plain import run_plain
from ._report import Result

TESTS = ("test_hadamard.py",)
ABOUT = "rotation of blocks of 128 along the rows"
TAKES = {"shape": "N x K, K a multiple of 128", "backend": ""}
SIZE = (2048, 768)
GPU_SIZE = (32768, 4096)
BLOCK = 128


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options)]


def run(options: Options) -> Result:
    """Measure into a tensor that is there; a matmul's sums are within 1e-5 of ours."""
    size = sizes("hadamard", options.shape, _device.pick(SIZE, GPU_SIZE))
    if len(size) != 2 or size[1] % BLOCK:
        raise BenchError(
            f"hadamard: --shape {'x'.join(map(str, size))}, expected rows of whole blocks of 128", 2
        )
    x = torch.randn(size, generator=_device.generator())
    out = torch.empty_like(x)

    def ours() -> torch.Tensor:
        found: torch.Tensor = fk.hadamard(x, BLOCK, out=out)
        return found

    theirs = {**peers.rotations(x, BLOCK), **options.users("hadamard", x=x, block=BLOCK)}
    shape = {"size": list(size), "block": BLOCK}
    moved = 8 * x.numel()
    return run_plain("hadamard", options, ours, theirs, shape=shape, moved=moved, most=1e-5)
