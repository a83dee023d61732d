"""Training steps of small models: plain PyTorch's STE, our STE, FOGZO with one probe."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import recipes

from . import _blocks, _device, peers
from ._measure import measure
from ._options import BenchError, Options
from ._report import Bar, Result, copy_yardstick, fastest, say

TESTS = ("test_estimator*.py", "test_layers*.py")
ABOUT = "whole training steps, optimizer included"
LR = 1e-3
CHECK_STEPS = 3

Batch = tuple[Tensor, Tensor]
Loss = Callable[[Tensor, Tensor], Tensor]
Step = Callable[[], Tensor]


@dataclass(frozen=True)
class Net:
    """A quantized model, a batch for it, and what is measured on it.

    Attributes:
        shape: what a row says of it.
        variants: our estimators by name, each with the most that its step may take of the fastest
            plain PyTorch STE step of the same net; infinity: no bar.
        rounds: samples of a variant for each of `--repeat`; a sample lasts at least `sample_s`.
    """

    model: nn.Sequential
    batch: Batch
    loss_of: Loss
    shape: dict[str, Any]
    variants: dict[str, tuple[Callable[[nn.Module], Any], float]]
    rounds: float = 1.0
    sample_s: float = 0.02


def _mnist() -> Net:
    recipe = recipes.get("mnist")
    task = recipe.task(None, _device.current())
    generator = torch.Generator().manual_seed(0)
    model = recipe.model(0)
    assert isinstance(model, nn.Sequential)
    return Net(
        model,
        task.batch(torch.randperm(task.examples, generator=generator)[: recipe.batch_size]),
        F.cross_entropy,
        {"model": "mnist", "batch": recipe.batch_size, "weights": _weights(model)},
        {"our STE": (fogzo.STE, 1.05), "FOGZO n = 1": (fogzo.FOGZO, 2.2)},
    )


def _of_blocks(name: str, act_bits: int | None, **variants: Any) -> Net:
    model = _blocks.net(act_bits)
    size = _blocks.of_device()
    about = {"width": size.width, "blocks": size.blocks, "tokens": size.tokens}
    shape = {"model": name, **about, "weights": _weights(model)}
    # a step takes a second: few samples, each of one step
    return Net(model, _blocks.batch(), F.mse_loss, shape, variants, rounds=0.25, sample_s=0.0)


def _float_blocks() -> Net:
    int8 = partial(fogzo.FOGZO, probe_dtype="int8")
    quarter = partial(int8, probe_fraction=0.25)
    return _of_blocks(
        "blocks",
        None,
        **{
            "our STE": (fogzo.STE, 1.05),
            "FOGZO n = 1": (fogzo.FOGZO, 1.70),
            "FOGZO n = 1, int8": (int8, 1.36),
            "FOGZO n = 1, int8, 1/4": (quarter, 1.12),
        },
    )


def _low_bit_blocks() -> Net:
    return _of_blocks(
        "blocks W2A8",
        8,
        **{"our STE": (fogzo.STE, float("inf")), "FOGZO n = 1": (fogzo.FOGZO, 1.18)},
    )


MODELS: dict[str, tuple[Callable[[], Net], ...]] = {
    "mnist": (_mnist,),
    "blocks": (_float_blocks, _low_bit_blocks),
}
TAKES = {"model": ", ".join(MODELS)}


def cases(options: Options) -> list[Callable[[], Result]]:
    models = [options.model] if options.model else _device.pick(list(MODELS), ["blocks"])
    return [partial(run, make, options) for model in models for make in MODELS[model]]


def our_step(
    model: nn.Module,
    estimator: Any,
    batch: Batch,
    lr: float,
    loss_of: Loss = F.cross_entropy,
) -> Step:
    """One step through an estimator of ours: backward(closure), Adam."""
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)
    inputs, targets = batch

    def closure() -> Tensor:
        return loss_of(model(inputs), targets)

    def of_rows(batch: Batch) -> Tensor:
        return loss_of(model(batch[0]), batch[1])

    partly = getattr(estimator, "probe_fraction", 1.0) < 1
    given = (of_rows, batch) if partly else (closure,)

    def step() -> Tensor:
        loss: Tensor = estimator.backward(*given)
        optimizer.step()
        optimizer.zero_grad()
        return loss

    return step


def _peer_models(model: nn.Sequential, compiled: bool) -> dict[str, nn.Module]:
    found: dict[str, nn.Module] = {
        "plain STE, detach": peers.ste_model(peers.DetachLinear, model),
        "plain STE, Function": peers.ste_model(peers.FunctionLinear, model),
    }
    if compiled:
        eager = peers.ste_model(peers.DetachLinear, model)
        found["plain STE, compiled"] = torch.compile(eager, fullgraph=True)  # type: ignore[assignment]
    return found


def check_equal(name: str, peer: Step, ours: Step, exact: bool) -> None:
    """The first steps' losses must be equal: bit for bit where exact, else to 1e-3 of them.

    The detach trick computes w + (q - w), one rounding away from q, and compiled code may contract
    and reorder sums: a relative error near 2^-24 in each of 784 terms is at most 5e-5 of their
    magnitudes in a logit; Adam's first steps, which take the sign of tiny gradients too, add more.
    Products of integers differ from those of float32 values in the same way.
    """
    for number in range(CHECK_STEPS):
        got, expected = peer().item(), ours().item()
        if got != expected if exact else abs(got - expected) > 1e-3 * abs(expected):
            raise BenchError(
                f"step: {name} has loss {got} at step {number}, expected our STE's {expected}"
            )


def run(make: Callable[[], Net], options: Options) -> Result:
    """Measure one training step of each variant.

    Args:
        make: the net.
        options: how to measure; torch.compile needs a C++ compiler.

    Returns:
        Times; bars: the net's, over the fastest plain PyTorch STE step, optimizer included.
    """
    net = make()
    compiled = options.compiled and shutil.which("g++") is not None
    if options.compiled and not compiled:
        say("torch.compile is not measured: it needs g++ (apt-get install -y g++)")

    def ours(estimator: Callable[[nn.Module], Any]) -> Step:
        model = copy.deepcopy(net.model)
        return our_step(model, estimator(model), net.batch, LR, net.loss_of)

    variants: dict[str, Step] = {}
    integers = any(isinstance(m, fogzo.QuantLinear) and m.config.act_bits
                   for m in net.model.modules())  # fmt: skip
    for name, peer in _peer_models(net.model, compiled).items():
        step = peers.ste_step(peer, net.batch, LR, net.loss_of)
        check_equal(name, step, ours(fogzo.STE), "Function" in name and not integers)
        variants[name] = step
    given = {"model": copy.deepcopy(net.model), "batch": net.batch, "lr": LR}
    given["loss_of"] = net.loss_of
    for name, step in options.users("step", **given).items():
        check_equal(name, step, ours(fogzo.STE), False)
        variants[name] = step
    names = list(variants)
    for name, (estimator, _) in net.variants.items():
        variants[name] = ours(estimator)

    yardstick, copied = copy_yardstick(net.batch[0].numel())
    # Samples of many steps: what a training loop repeats, not what it costs to come from elsewhere.
    times = measure(
        {**variants, **_parts(net), "copy": yardstick},
        threads=options.threads,
        rounds=max(round(options.repeat * net.rounds), 1),
        warmup=10 if net.sample_s else 1,
        sample_seconds=net.sample_s,
    )
    copy_times = times.pop("copy")
    divisor = fastest(times, names)
    bars = {name: most for name, (_, most) in net.variants.items() if most < float("inf")}
    notes = []
    if "forward" in times:
        forward, products, step_time = (
            times[name].median for name in ("forward", "products", divisor)
        )
        bound = _blocks.cost(forward, products, step_time)
        if _device.on_gpu():  # the other bars are the CPU's
            bars = {}
            if integers:
                bars["FOGZO n = 1"] = round(_blocks.low_bit_bar(forward, products), 4)
        notes.append(f"1 + 2 (t_fwd - t_lin + t_lin / 3) / t_step: {bound:.3f} for probes in int8")
    return Result(
        op="step",
        shape=net.shape,
        times=times,
        bars=[Bar(name, divisor, most) for name, most in bars.items()],
        copy=copy_times,
        copied=copied,
        notes=notes,
    )


def _parts(net: Net) -> dict[str, Callable[[], object]]:
    """For blocks, a plain forward without gradients and its products alone."""
    if not isinstance(net.model[0], _blocks.Block):
        return {}
    plain = peers.ste_model(peers.FunctionLinear, net.model)

    @torch.no_grad()
    def forward() -> Tensor:
        out: Tensor = plain(net.batch[0])
        return out

    return {"forward": forward, "products": _blocks.products(net.model)}


def _weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
