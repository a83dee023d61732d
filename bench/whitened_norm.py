"""whitened_norm over 18 gradients of 768 x 768: one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

import fogzo_kernels as fk

from . import _layers, peers
from ._options import Options
from ._plain import run_plain
from ._report import Result

TESTS = ("test_whitened_norm.py",)
ABOUT = "the one norm of all whitened gradients"
TAKES = {"shape": "[weights x] N x K", "backend": ""}


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options)]


def run(options: Options) -> Result:
    """Measure N; a float32 sum in another order is within 1e-5 of it."""
    layers = _layers.make("whitened_norm", options)
    out = torch.empty(())

    def ours() -> torch.Tensor:
        found: torch.Tensor = fk.whitened_norm(layers.grads, layers.scales, "identity", out=out)
        return found

    given: dict[str, Any] = {
        "grads": layers.grads,
        "scales": layers.scales,
        "radius": fk.radius("identity"),
    }
    theirs = {
        **peers.norms(**given, compiled=options.compiled),
        **options.users("whitened_norm", **given),
    }
    return run_plain(
        "whitened_norm",
        options,
        ours,
        theirs,
        shape=layers.about(),
        moved=4 * layers.elements,
        most=1e-5,
        own_order=2.0**-22,
    )
