"""assemble_gradient of 18 weights of 768 x 768 over their gradients, noise made again."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _device, _layers, peers
from ._backends import backend_calls
from ._measure import measure
from ._options import Options, require_close
from ._report import Result, copy_yardstick

TESTS = ("test_assemble_gradient*.py", "test_noise*.py")
ABOUT = "the corrected gradient from the seed and the differences"
DIFFERENCE = 0.5
TAKES = {"shape": "[weights x] N x K", "probes": "instead of 1 and 4", "backend": ""}


def _ours(layers: _layers.Layers, kind: str, probes: int) -> Callable[[], Tensor]:
    differences = torch.tensor([DIFFERENCE, -1.0, 1.0, 2.0] * probes)[:probes]
    out = torch.empty(len(layers.grads), *layers.size)
    norm, outs = layers.norm(kind), list(out)

    def many() -> Tensor:
        fk.assemble_gradient_many(
            layers.grads, layers.scales, differences, "identity", seed=_layers.SEED,
            step=_layers.STEP, tensors=list(range(len(out))), gamma=_layers.GAMMA, norm=norm,
            noise=kind, outs=outs,
        )  # fmt: skip
        return out

    return many


def cases(options: Options) -> list[Callable[[], Result]]:
    return [partial(run, kind, options) for kind in ("published", "rademacher")]


def run(kind: str, options: Options) -> Result:
    """Measure G from one and from four probes.

    The peer keeps its probe's noise in memory from the forward passes on, and draws nothing. The
    rounding of its other order of operations is below 1e-5 of the largest value.

    Args:
        kind: published (uniform) or rademacher.
        options: shape, probes, backend and how to measure.

    Returns:
        Times; no bar.
    """
    layers = _layers.make("assemble_gradient", options)
    usable = options.backends("assemble_gradient")
    variants: dict[str, Callable[[], object]] = {}
    for probes in (options.probes,) if options.probes else (1, 4):
        calls = backend_calls("assemble_gradient", _ours(layers, kind, probes), usable)
        variants |= {f"{name} n={probes}": call for name, call in calls.items()}
    draw: dict[str, Any] = {"seed": _layers.SEED, "step": _layers.STEP, "noise": kind}
    u = [
        fk.noise(layers.size, "identity", tensor=t, device=_device.current(), **draw)
        for t in range(len(layers.grads))
    ]
    along, across, radius = peers.mixing(_layers.GAMMA, layers.norm(kind).item(), kind)
    mixing = (_layers.sign() * along, across, radius)
    given: dict[str, Any] = {
        "grads": layers.grads,
        "scales": layers.scales,
        "u": u,
        "difference": DIFFERENCE,
    }
    theirs = {
        "eager, noise kept": peers.stored_gradient(mix=mixing, **given),
        **options.users("assemble_gradient", mix=mixing, **given),
    }
    for name, call in theirs.items():
        require_close("assemble_gradient", name, call(), list(_ours(layers, kind, 1)()), 1e-5)
    yardstick, copied = copy_yardstick(layers.elements)
    times = measure(
        {**variants, **theirs, "copy": yardstick}, threads=options.threads, rounds=options.repeat
    )
    return Result(
        op="assemble_gradient",
        shape=layers.about(noise=kind),
        copy=times.pop("copy"),
        times=times,
        bars=[],
        copied=copied,
        moved=dict.fromkeys(variants, 8 * layers.elements),
    )
