"""Noise: our counter-based u against torch's own generator writing to the same place."""

from __future__ import annotations

import torch

import fogzo_kernels as fk

from . import peers
from ._backends import backend_calls
from ._measure import measure
from ._report import Result, copy_yardstick

TESTS = ("test_noise*.py",)
SIZE = (768, 768)


def _check_distribution(name: str, u: torch.Tensor) -> None:
    """Mean 0 and variance 1 within 6 standard errors of n draws."""
    n = u.numel()
    mean, square = u.double().mean().item(), u.double().square().mean().item()
    if abs(mean) > 6 / n**0.5 or abs(square - 1) > 6 / n**0.5:
        raise RuntimeError(
            f"bench noise: {name} has mean {mean} and variance {square}, expected 0 and 1"
        )


def run(kind: str, threads: int, rounds: int) -> Result:
    """Measure one tensor's u by each backend and by torch.

    Args:
        kind: published (uniform) or rademacher.
        threads: for torch and our kernels.
        rounds: samples per variant.

    Returns:
        Times; no bar.
    """
    out = torch.empty(SIZE)

    def ours() -> torch.Tensor:
        drawn: torch.Tensor = fk.noise(
            SIZE, "identity", seed=0, step=0, tensor=0, noise=kind, out=out
        )
        return drawn

    peer = peers.NOISES[kind](torch.empty(SIZE))
    _check_distribution("torch", peer())
    _check_distribution("ours", ours())
    variants = {**backend_calls("noise", ours), "torch": peer}
    yardstick, copied = copy_yardstick(out.numel())
    times = measure({**variants, "copy": yardstick}, threads=threads, rounds=rounds)
    return Result(
        op="noise",
        shape={"size": list(SIZE), "noise": kind},
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(variants, 4 * out.numel()),
    )
