"""compute_scale of 18 weights of 768 x 768: the fixed rule per channel, and absmax beside it."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _layers, peers_scale
from ._options import BITS, Options
from ._plain import run_plain
from ._report import Result

TESTS = ("test_compute_scale.py",)
ABOUT = "a scale for each row of float32 weights"
TAKES = {"shape": "[weights x] N x K", "bits": BITS, "backend": ""}


def cases(options: Options) -> list[Callable[[], Result]]:
    return [partial(run, rule, options) for rule in ("fixed", "absmax")]


def run(rule: str, options: Options) -> Result:
    """Measure scales into tensors that are there; a peer's float32 sums are within 1e-5."""
    layers = _layers.make("compute_scale", options)
    out = torch.empty(len(layers.weights), layers.size[0], 1)

    def ours() -> list[Tensor]:
        for w, into in zip(layers.weights, out, strict=True):
            fk.compute_scale(w, layers.grid, rule, out=into)
        return list(out)

    theirs = {
        **peers_scale.scalers(layers.weights, layers.grid, rule, options.compiled),
        **options.users("compute_scale", ws=layers.weights, grid=layers.grid, rule=rule),
    }
    shape, moved = layers.about(rule=rule), 4 * layers.elements
    return run_plain(
        "compute_scale", options, ours, theirs, shape=shape, moved=moved, most=1e-5,
        own_order=2.0**-22,
    )  # fmt: skip
