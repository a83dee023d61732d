"""perturb_quantize: both sides of one probe as 2-bit values, against eager PyTorch."""

from __future__ import annotations

import torch

import fogzo_kernels as fk

from . import peers
from ._backends import backend_calls
from ._measure import measure
from ._report import Result, copy_yardstick

TESTS = ("test_perturb_quantize*.py", "test_noise*.py")
SIZE = (768, 768)
GAMMA = 1e-4


def run(kind: str, threads: int, rounds: int) -> Result:
    """Measure one perturbed pair by each backend and by eager torch.

    The peer draws its noise inside, as a user would; with our u, our N and our s (either sign)
    it must give our values but for ties, which its other order of operations may turn: an x
    within a few ulp of an edge, at most 1e-4 of them.

    Args:
        kind: published (uniform) or rademacher.
        threads: for torch and our kernels.
        rounds: samples per variant.

    Returns:
        Times; no bar.
    """
    generator = torch.Generator().manual_seed(0)
    w = torch.randn(SIZE, generator=generator) / SIZE[1] ** 0.5
    grad = torch.randn(SIZE, generator=generator) / SIZE[1]
    grid = fk.Grid("mid-rise", bits=2)
    scale = fk.compute_scale(w, grid)
    norm = fk.whitened_norm([grad], [scale], "identity", noise=kind)
    out = torch.empty(2, *SIZE)

    def ours() -> torch.Tensor:
        sides: torch.Tensor = fk.perturb_quantize(
            w, grad, scale, grid, "identity", seed=0, step=0, tensor=0, gamma=GAMMA, norm=norm,
            noise=kind, out=out,
        )  # fmt: skip
        return sides

    draw = peers.NOISES[kind](torch.empty(SIZE))
    radius, across = fk.radius("identity", kind), GAMMA**0.5
    along = (1 - GAMMA) ** 0.5 / norm.item()

    def peer() -> tuple[torch.Tensor, torch.Tensor]:
        return peers.perturbed_pair(w, grad, scale, draw(), along, across, radius)

    u = fk.noise(SIZE, "identity", seed=0, step=0, tensor=0, noise=kind)
    different = min(
        (ours() != torch.stack(peers.perturbed_pair(w, grad, scale, u, sign, across, radius)))
        .double()
        .mean()
        .item()
        for sign in (along, -along)
    )
    if different > 1e-4:
        raise RuntimeError(
            f"bench perturb_quantize: eager differs in {different:.2%} of the values, expected "
            "at most 0.01 %"
        )
    variants = {**backend_calls("perturb_quantize", ours), "eager": peer}
    yardstick, copied = copy_yardstick(2 * w.numel())
    times = measure({**variants, "copy": yardstick}, threads=threads, rounds=rounds)
    return Result(
        op="perturb_quantize",
        shape={"size": list(SIZE), "probes": 1, "form": "values", "noise": kind},
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(variants, 16 * w.numel()),
    )
