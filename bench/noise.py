"""Noise: our counter-based u against torch's own generator writing to the same place."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch

import fogzo_kernels as fk

from . import _device, peers
from ._backends import backend_calls
from ._measure import measure
from ._options import BenchError, Options, sizes
from ._report import Result, copy_yardstick

TESTS = ("test_noise*.py",)
ABOUT = "one tensor of u of each kind"
TAKES = {"shape": "N x K", "backend": ""}
SIZE = (768, 768)
GPU_SIZE = (16384, 16384)


def _check_distribution(name: str, u: torch.Tensor) -> None:
    """Mean 0 and variance 1 within 6 standard errors of n draws."""
    n = u.numel()
    mean, square = u.double().mean().item(), u.double().square().mean().item()
    if abs(mean) > 6 / n**0.5 or abs(square - 1) > 6 / n**0.5:
        raise BenchError(f"noise: {name} has mean {mean} and variance {square}, expected 0 and 1")


def cases(options: Options) -> list[Callable[[], Result]]:
    return [partial(run, kind, options) for kind in ("published", "rademacher")]


def run(kind: str, options: Options) -> Result:
    """Measure one tensor's u by each backend and by torch.

    Args:
        kind: published (uniform) or rademacher.
        options: shape, backend and how to measure.

    Returns:
        Times; no bar.
    """
    size = sizes("noise", options.shape, _device.pick(SIZE, GPU_SIZE))
    out = torch.empty(size)

    def ours() -> torch.Tensor:
        drawn: torch.Tensor = fk.noise(
            size, "identity", seed=0, step=0, tensor=0, noise=kind, out=out
        )
        return drawn

    theirs = {"torch": peers.NOISES[kind](torch.empty(size))}
    theirs |= options.users("noise", shape=size, kind=kind)
    for name, call in {**theirs, "ours": ours}.items():
        _check_distribution(name, call())
    variants = backend_calls("noise", ours, options.backends("noise", ("cpu", "reference")))
    yardstick, copied = copy_yardstick(out.numel())
    times = measure(
        {**variants, **theirs, "copy": yardstick}, threads=options.threads, rounds=options.repeat
    )
    return Result(
        op="noise",
        shape={"size": list(size), "noise": kind},
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(times, 4 * out.numel()),
    )
