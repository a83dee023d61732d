"""fake_quantize of 18 weights of 768 x 768 into tensors that are there, against torch's copy_."""

from __future__ import annotations

import torch

import fogzo_kernels as fk

from . import _layers, peers
from ._backends import backend_calls
from ._measure import measure
from ._report import Bar, Result, fastest

TESTS = ("test_fake_quantize*.py",)


def run(threads: int, rounds: int, compiled: bool) -> Result:
    """Measure 2-bit mid-rise values, scale per channel.

    Args:
        threads: for torch and our kernels.
        rounds: samples per variant.
        compiled: measure torch.compile too.

    Returns:
        Times and the bars: 1.3 times copy_, 1 / 1.7 of the fastest eager variant.
    """
    layers = _layers.make()
    out = torch.empty(len(layers.weights), *_layers.SIZE)

    def ours() -> torch.Tensor:
        for w, scale, into in zip(layers.weights, layers.scales, out, strict=True):
            fk.fake_quantize(w, scale, _layers.GRID, out=into)
        return out

    variants = backend_calls("fake_quantize", ours, timed=("cpu",))
    theirs = peers.fake_quantizers(layers.weights, layers.scales, compiled)
    for name, call in theirs.items():
        different = torch.stack(call()).ne(ours()).double().mean().item()
        if different > 0:
            raise RuntimeError(f"bench fake_quantize: {name} differs in {different:.2%} of values")
    copy = _layers.copy(layers)
    times = measure({**variants, **theirs, "copy": copy}, threads=threads, rounds=rounds)
    eager = fastest(times, [name for name in theirs if name.startswith("eager")])
    bars = [Bar("cpu", "copy", 1.3), Bar("cpu", eager, 1 / 1.7)] if "cpu" in times else []
    return Result(
        op="fake_quantize",
        shape={"weights": len(layers.weights), "size": list(_layers.SIZE), "grid": "mid-rise 2"},
        copy=times["copy"],
        times=times,
        bars=bars,
        copied=8 * layers.elements,
        moved=dict.fromkeys(times, 8 * layers.elements),
    )
