"""hadamard_quantize of one weight: rotation, scale of each row and codes, against their steps."""

from __future__ import annotations

from collections.abc import Callable

import torch

import fogzo_kernels as fk

from . import _device, peers_scale
from ._options import BITS, Options, grid_name, grid_of, sizes
from ._plain import run_plain
from ._report import Result

TESTS = ("test_hadamard_quantize.py",)
ABOUT = "rotation, scale of each row and codes of one weight"
TAKES = {"shape": "N x K, K a multiple of 128", "bits": BITS, "backend": ""}
SIZE = (2048, 768)
GPU_SIZE = (32768, 4096)


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options)]


def run(options: Options) -> Result:
    """Measure codes into tensors that are there.

    A peer rotates by a matmul, whose sums are another order's: an x within 1e-5 of a tie may turn,
    and so few lie there that 1e-3 of the codes may differ.
    """
    size = sizes("hadamard_quantize", options.shape, _device.pick(SIZE, GPU_SIZE))
    bits = options.bits or 2
    grid = grid_of(bits)
    x = torch.randn(size, generator=_device.generator())
    out = torch.empty(size, dtype=torch.uint8), torch.empty(size[0], 1)

    def ours() -> torch.Tensor:
        codes: torch.Tensor = fk.hadamard_quantize(x, grid, "codes", out=out)[0]
        return codes

    theirs = peers_scale.rotated_quantizers(x, grid, bits, options.compiled)
    theirs |= options.users("hadamard_quantize", w=x, grid=grid)
    return run_plain(
        "hadamard_quantize",
        options,
        ours,
        theirs,
        shape={"size": list(size), "grid": grid_name(grid)},
        moved=5 * x.numel(),
        ties=1e-3,
        own_order=1e-4,
    )
