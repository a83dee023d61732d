"""quantize and dequantize of 18 weights of 768 x 768: codes of a byte, and values from them."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _layers
from . import peers_codes as peers
from ._options import BITS, Options
from ._plain import run_plain
from ._report import Result

TESTS = ("test_quantize.py",)
ABOUT = "codes of float32 weights; dequantize beside it"
TAKES = {"shape": "[weights x] N x K", "bits": BITS, "backend": ""}


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options), lambda: run_back(options)]


def run(options: Options) -> Result:
    """Measure codes into tensors that are there."""
    layers = _layers.make("quantize", options)
    out = torch.empty(len(layers.weights), *layers.size, dtype=torch.uint8)

    def ours() -> list[Tensor]:
        for w, scale, into in zip(layers.weights, layers.scales, out, strict=True):
            fk.quantize(w, scale, layers.grid, out=into)
        return list(out)

    given = {"ws": layers.weights, "scales": layers.scales}
    theirs = {
        **peers.quantizers(**given, compiled=options.compiled, bits=layers.bits),
        **options.users("quantize", **given, grid=layers.grid),
    }
    return run_plain(
        "quantize",
        options,
        ours,
        theirs,
        shape=layers.about(),
        moved=5 * layers.elements,
        ties=1e-4,
    )


def run_back(options: Options) -> Result:
    """Measure values from codes, into tensors that are there."""
    layers = _layers.make("dequantize", options)
    pairs = zip(layers.weights, layers.scales, strict=True)
    codes = [fk.quantize(w, scale, layers.grid) for w, scale in pairs]
    out = torch.empty(len(layers.weights), *layers.size)

    def ours() -> list[Tensor]:
        for one, scale, into in zip(codes, layers.scales, out, strict=True):
            fk.dequantize(one, scale, layers.grid, out=into)
        return list(out)

    given = {"codes": codes, "scales": layers.scales}
    theirs = {
        **peers.dequantizers(**given, compiled=options.compiled, grid=layers.grid),
        **options.users("dequantize", **given, grid=layers.grid),
    }
    return run_plain(
        "dequantize", options, ours, theirs, shape=layers.about(), moved=5 * layers.elements
    )
