"""perturb_quantize of 18 weights of 768 x 768, 2-bit packed, against eager and compiled PyTorch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _device, _layers, peers, static
from ._backends import backend_calls
from ._measure import Times, measure
from ._options import BITS, BenchError, Options
from ._report import Bar, Result, copy_yardstick, fastest

TESTS = ("test_perturb_quantize*.py", "test_noise*.py")
ABOUT = "all perturbed codes, packed, from one read of w and g"
TAKES = {
    "shape": "[weights x] N x K",
    "bits": BITS,
    "probes": "beside 1, instead of 4",
    "backend": "",
}
MOST_READS = {"published": 4.0, "rademacher": 2.0}
MORE_PROBES = 4
EACH_FURTHER = 0.75  # of the time of one probe
MOST_SECONDS = {1: 0.8e-3, 4: 1.8e-3}  # an H200's, of 300M weights


def cases(options: Options) -> list[Callable[[], Result]]:
    return [partial(run, kind, options) for kind in ("published", "rademacher")]


def _stored(layers: _layers.Layers) -> tuple[int, int]:
    """Bits of a packed code, and bytes of a packed row."""
    bits = next(width for width in (1, 2, 4, 8) if width >= layers.bits)
    return bits, -(-layers.size[1] * bits // 8)


def _ours(layers: _layers.Layers, kind: str, probes: int) -> Callable[[], Tensor]:
    rows, cols = layers.size
    bits, width = _stored(layers)
    data = torch.empty(len(layers.weights), 2 * probes, rows, width, dtype=torch.uint8)
    outs = [fk.Packed(one, bits, (2 * probes, rows, cols)) for one in data]
    norm = layers.norm(kind)

    def many() -> Tensor:
        fk.perturb_quantize_many(
            layers.weights, layers.grads, layers.scales, layers.grid, layers.surrogate,
            seed=_layers.SEED, step=_layers.STEP, tensors=list(range(len(outs))), probes=probes,
            gamma=_layers.GAMMA, norm=norm, noise=kind, form="packed", outs=outs,
        )  # fmt: skip
        return data

    return many


def _check(name: str, pair: Any, layers: _layers.Layers, kind: str) -> None:
    """With our u, N and s, a peer must give our values of the first weight but for ties.

    Another order of operations may turn an x within a few ulp of an edge: at most 1e-4 of them.
    """
    w, grad, scale = layers.weights[0], layers.grads[0], layers.scales[0]
    ours = fk.perturb_quantize(
        w, grad, scale, layers.grid, layers.surrogate, seed=_layers.SEED, step=_layers.STEP,
        tensor=0, noise=kind, gamma=_layers.GAMMA, norm=layers.norm(kind),
    )  # fmt: skip
    different = (ours != torch.stack(list(pair))).double().mean().item()
    if different > 1e-4:
        raise BenchError(
            f"perturb_quantize: {name} differs in {different:.2%} of the values, expected at most "
            "0.01 %"
        )


def _peers(layers: _layers.Layers, kind: str, options: Options) -> dict[str, Callable[[], object]]:
    """Peers to time by name, the user's too; their formula is checked with our noise first."""
    along, across, radius = peers.mixing(
        _layers.GAMMA, layers.norm(kind).item(), kind, layers.surrogate
    )
    mix = (_layers.sign() * along, across, radius)
    draw: dict[str, Any] = {"seed": _layers.SEED, "step": _layers.STEP, "noise": kind}
    u = [
        fk.noise(layers.size, layers.surrogate, tensor=t, device=_device.current(), **draw)
        for t in range(len(layers.weights))
    ]
    first = (layers.weights[0], layers.grads[0], layers.scales[0])
    _check("eager", peers.perturbed_pair(*first, u[0], *mix, layers.bits), layers, kind)
    theirs = peers.perturbers(
        layers.weights, layers.grads, layers.scales, kind, mix, options.compiled, layers.bits
    )
    given: dict[str, Any] = {
        "ws": layers.weights, "grads": layers.grads, "scales": layers.scales,
        "grid": layers.grid, "kind": kind, "mix": mix,
    }  # fmt: skip
    for name, call in options.users("perturb_quantize", u=u, **given).items():
        _check(name, call()[0], layers, kind)
    return {**theirs, **options.users("perturb_quantize", u=None, **given)}


def _roofline(
    layers: _layers.Layers, kind: str, probes: list[int], gpu: str | None
) -> tuple[list[Bar], dict[str, Times]]:
    """An H200's bars and what it needs at least, where that is the GPU: DESIGN section 7."""
    name = "packed" if kind == "published" else "packed, rademacher"
    bars, lines = [], {}
    for n in probes:
        least = static.least("perturb_quantize", name, f"{n} probes", layers.elements, gpu)
        if least is None:
            continue
        lines[f"roofline n={n}"] = Times(least, least, least)
        if kind == "published" and n in MOST_SECONDS:
            most = max(MOST_SECONDS[n] * layers.elements / 300e6 / least, 1 / 0.7)
            bars.append(Bar(f"triton n={n}", f"roofline n={n}", round(most, 4)))
    return bars, lines


def run(kind: str, options: Options) -> Result:
    """Measure one probe's pair and four probes' pairs.

    The peers draw their noise inside, as a user would, and give values, or codes of one byte,
    which nobody packs in stock PyTorch.

    Args:
        kind: published (uniform) or rademacher.
        options: shape, bits, probes, backend and how to measure.

    Returns:
        Times and the bars: times of reading w and g, of the fastest eager and the fastest compiled
        peer, and the share of one probe that each further probe takes.
    """
    layers = _layers.make("perturb_quantize", options)
    more = options.probes or MORE_PROBES
    usable = options.backends("perturb_quantize")
    variants: dict[str, Callable[[], object]] = {}
    for probes in sorted({1, more}):
        calls = backend_calls("perturb_quantize", _ours(layers, kind, probes), usable)
        variants |= {f"{name} n={probes}": call for name, call in calls.items()}
    theirs = _peers(layers, kind, options)
    yardstick, copied = copy_yardstick(2 * layers.elements)
    times = measure(
        {**variants, **theirs, "read": _layers.read(layers), "copy": yardstick},
        threads=options.threads,
        rounds=options.repeat,
    )
    bars, lines = _roofline(layers, kind, [1, more], _device.gpu_name())
    times |= lines
    if layers.barred and "cpu n=1" in times:
        bars = [Bar("cpu n=1", "read", MOST_READS[kind])]
        if more > 1:
            bars.append(Bar(f"cpu n={more}", "cpu n=1", 1 + (more - 1) * EACH_FURTHER))
        for group, least in (("eager", 6.0), ("compile", 5.0)):
            names = [name for name in theirs if name.startswith(group)]
            if names and kind == "published":
                bars.append(Bar("cpu n=1", fastest(times, names), 1 / least))
    pair = 2 * len(layers.weights) * layers.size[0] * _stored(layers)[1]
    return Result(
        op="perturb_quantize",
        shape=layers.about(form="packed", noise=kind),
        copy=times.pop("copy"),
        times=times,
        bars=bars,
        copied=copied,
        moved={
            "read": 8 * layers.elements,
            **{name: 8 * layers.elements + int(name.split("=")[1]) * pair for name in variants},
        },
    )
