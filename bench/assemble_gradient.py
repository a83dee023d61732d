"""assemble_gradient of 18 weights of 768 x 768 over their gradients, noise made again."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _layers, peers
from ._backends import backend_calls
from ._measure import measure
from ._report import Result, copy_yardstick

TESTS = ("test_assemble_gradient*.py", "test_noise*.py")


def _ours(layers: _layers.Layers, kind: str, probes: int) -> Callable[[], Tensor]:
    differences = torch.linspace(-1, 1, probes) if probes > 1 else torch.tensor([0.5])
    out = torch.empty(len(layers.grads), *_layers.SIZE)
    norm = layers.norm(kind)

    def call() -> Tensor:
        for tensor, (grad, scale, into) in enumerate(
            zip(layers.grads, layers.scales, out, strict=True)
        ):
            fk.assemble_gradient(
                grad, scale, differences, "identity", seed=_layers.SEED, step=_layers.STEP,
                tensor=tensor, gamma=_layers.GAMMA, norm=norm, noise=kind, out=into,
            )  # fmt: skip
        return out

    return call


def run(kind: str, threads: int, rounds: int) -> Result:
    """Measure G from one and from four probes.

    The peer keeps its probe's noise in memory from the forward passes on, and draws nothing.

    Args:
        kind: published (uniform) or rademacher.
        threads: for torch and our kernels.
        rounds: samples per variant.

    Returns:
        Times; no bar.
    """
    layers = _layers.make()
    variants: dict[str, Callable[[], object]] = {}
    for probes in (1, 4):
        calls = backend_calls("assemble_gradient", _ours(layers, kind, probes), timed=("cpu",))
        variants |= {f"{name} n={probes}": call for name, call in calls.items()}
    u = [
        fk.noise(
            _layers.SIZE, "identity", seed=_layers.SEED, step=_layers.STEP, tensor=t, noise=kind
        )
        for t in range(len(layers.grads))
    ]
    mixing = peers.mixing(_layers.GAMMA, layers.norm(kind).item(), kind)
    stored = peers.stored_gradient(layers.grads, layers.scales, u, 0.5, mixing)
    yardstick, copied = copy_yardstick(layers.elements)
    times = measure(
        {**variants, "eager, noise kept": stored, "copy": yardstick},
        threads=threads,
        rounds=rounds,
    )
    return Result(
        op="assemble_gradient",
        shape={"weights": len(layers.grads), "size": list(_layers.SIZE), "noise": kind},
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(variants, 8 * layers.elements),
    )
