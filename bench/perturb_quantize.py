"""perturb_quantize of 18 weights of 768 x 768, 2-bit packed, against eager and compiled PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _layers, peers
from ._backends import backend_calls
from ._measure import measure
from ._report import Bar, Result, copy_yardstick, fastest

TESTS = ("test_perturb_quantize*.py", "test_noise*.py")
MOST_READS = {"published": 4.0, "rademacher": 2.0}
PROBES = (1, 4)
EACH_FURTHER = 0.75  # of the time of one probe


def _ours(layers: _layers.Layers, kind: str, probes: int) -> Callable[[], Tensor]:
    rows, cols = _layers.SIZE
    data = torch.empty(len(layers.weights), 2 * probes, rows, cols // 4, dtype=torch.uint8)
    outs = [fk.Packed(one, 2, (2 * probes, rows, cols)) for one in data]
    norm = layers.norm(kind)

    def call() -> Tensor:
        columns = zip(layers.weights, layers.grads, layers.scales, outs, strict=True)
        for tensor, (w, grad, scale, out) in enumerate(columns):
            fk.perturb_quantize(
                w, grad, scale, _layers.GRID, "identity", seed=_layers.SEED, step=_layers.STEP,
                tensor=tensor, probes=probes, gamma=_layers.GAMMA, norm=norm, noise=kind,
                form="packed", out=out,
            )  # fmt: skip
        return data

    return call


def _check_peer(layers: _layers.Layers, kind: str) -> None:
    """With our u, N and s, eager torch must give our values but for ties.

    Its other order of operations may turn an x within a few ulp of an edge: at most 1e-4 of them.
    """
    w, grad, scale = layers.weights[0], layers.grads[0], layers.scales[0]
    norm = layers.norm(kind)
    draw: dict[str, Any] = {"seed": _layers.SEED, "step": _layers.STEP, "tensor": 0, "noise": kind}
    ours = fk.perturb_quantize(
        w, grad, scale, _layers.GRID, "identity", gamma=_layers.GAMMA, norm=norm, **draw
    )
    u = fk.noise(_layers.SIZE, "identity", **draw)
    mixing = peers.mixing(_layers.GAMMA, norm.item(), kind)
    different = min(
        (
            ours
            != torch.stack(peers.perturbed_pair(w, grad, scale, u, sign * mixing[0], *mixing[1:]))
        )
        .double()
        .mean()
        .item()
        for sign in (1, -1)
    )
    if different > 1e-4:
        raise RuntimeError(
            f"bench perturb_quantize: eager differs in {different:.2%} of the values, expected "
            "at most 0.01 %"
        )


def run(kind: str, threads: int, rounds: int, compiled: bool) -> Result:
    """Measure one probe's pair and four probes' pairs.

    The peers draw their noise inside, as a user would, and give values, or codes of one byte,
    which nobody packs in stock PyTorch.

    Args:
        kind: published (uniform) or rademacher.
        threads: for torch and our kernels.
        rounds: samples per variant.
        compiled: measure torch.compile too.

    Returns:
        Times and the bars: times of reading w and g, of the fastest eager and the fastest compiled
        peer, and the share of one probe that each further probe takes.
    """
    layers = _layers.make()
    _check_peer(layers, kind)
    variants: dict[str, Callable[[], object]] = {}
    for probes in PROBES:
        calls = backend_calls("perturb_quantize", _ours(layers, kind, probes), timed=("cpu",))
        variants |= {f"{name} n={probes}": call for name, call in calls.items()}
    theirs = peers.perturbers(
        layers.weights, layers.grads, layers.scales, kind,
        peers.mixing(_layers.GAMMA, layers.norm(kind).item(), kind), compiled,
    )  # fmt: skip
    yardstick, copied = copy_yardstick(2 * layers.elements)
    times = measure(
        {**variants, **theirs, "read": _layers.read(layers), "copy": yardstick},
        threads=threads,
        rounds=rounds,
    )
    bars = []
    if "cpu n=1" in times:
        bars = [
            Bar("cpu n=1", "read", MOST_READS[kind]),
            Bar("cpu n=4", "cpu n=1", 1 + 3 * EACH_FURTHER),
        ]
        for group, least in (("eager", 6.0), ("compile", 5.0)):
            names = [name for name in theirs if name.startswith(group)]
            if names and kind == "published":
                bars.append(Bar("cpu n=1", fastest(times, names), 1 / least))
    packed = layers.elements // 2  # both sides of a probe
    return Result(
        op="perturb_quantize",
        shape={
            "weights": len(layers.weights),
            "size": list(_layers.SIZE),
            "grid": "mid-rise 2",
            "form": "packed",
            "noise": kind,
        },
        copy=times.pop("copy"),
        times=times,
        bars=bars,
        copied=copied,
        moved={
            "read": 8 * layers.elements,
            **{f"cpu n={n}": 8 * layers.elements + n * packed for n in PROBES},
        },
    )
