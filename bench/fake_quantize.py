"""fake_quantize of 18 weights of 768 x 768 into tensors that are there, against torch's copy_."""

from __future__ import annotations

from collections.abc import Callable

import torch

import fogzo_kernels as fk

from . import _layers, peers
from ._backends import backend_calls
from ._measure import measure
from ._options import BITS, Options, require_close
from ._report import Bar, Result, fastest

TESTS = ("test_fake_quantize*.py",)
ABOUT = "quantized values of float32 weights, into tensors that are there"
TAKES = {"shape": "[weights x] N x K", "bits": BITS, "backend": ""}


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options)]


def run(options: Options) -> Result:
    """Measure values, scale per channel.

    Returns:
        Times and the bars: 1.3 times copy_, 1 / 1.7 of the fastest eager variant.
    """
    layers = _layers.make("fake_quantize", options)
    out = torch.empty(len(layers.weights), *layers.size)

    def ours() -> torch.Tensor:
        for w, scale, into in zip(layers.weights, layers.scales, out, strict=True):
            fk.fake_quantize(w, scale, layers.grid, out=into)
        return out

    variants = backend_calls("fake_quantize", ours, options.backends("fake_quantize"))
    theirs = peers.fake_quantizers(layers.weights, layers.scales, options.compiled, layers.bits)
    users = options.users(
        "fake_quantize", ws=layers.weights, scales=layers.scales, grid=layers.grid
    )
    for name, call in {**theirs, **users}.items():
        require_close("fake_quantize", name, call(), list(ours()), 0, ties=1e-4)
    copy = _layers.copy(layers)
    times = measure(
        {**variants, **theirs, **users, "copy": copy},
        threads=options.threads,
        rounds=options.repeat,
    )
    eager = fastest(times, [name for name in theirs if name.startswith("eager")])
    barred = layers.barred and "cpu" in times
    bars = [Bar("cpu", "copy", 1.3), Bar("cpu", eager, 1 / 1.7)] if barred else []
    return Result(
        op="fake_quantize",
        shape=layers.about(),
        copy=times["copy"],
        times=times,
        bars=bars,
        copied=8 * layers.elements,
        moved=dict.fromkeys(times, 8 * layers.elements),
    )
