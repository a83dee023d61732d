"""Training steps of a small model: plain PyTorch's STE, our STE, FOGZO with one probe."""

from __future__ import annotations

import copy
import shutil
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import recipes

from . import peers
from ._measure import measure
from ._options import BenchError, Options
from ._report import Bar, Result, copy_yardstick, fastest, say

MODELS = {"mnist": "mnist"}
TESTS = ("test_estimator*.py", "test_layers*.py")
ABOUT = "whole training steps, optimizer included"
TAKES = {"model": ", ".join(MODELS)}
LR = 1e-3
CHECK_STEPS = 3

Step = Callable[[], Tensor]


def cases(options: Options) -> list[Callable[[], Result]]:
    models = [options.model] if options.model else list(MODELS)
    return [partial(run, model, options) for model in models]


def our_step(model: nn.Module, estimator: Any, batch: tuple[Tensor, Tensor], lr: float) -> Step:
    """One step through an estimator of ours: backward(closure), Adam."""
    inputs, targets = batch
    optimizer = torch.optim.Adam(model.parameters(), lr=lr, fused=True)

    def closure() -> Tensor:
        return F.cross_entropy(model(inputs), targets)

    def step() -> Tensor:
        loss: Tensor = estimator.backward(closure)
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
    """
    for number in range(CHECK_STEPS):
        got, expected = peer().item(), ours().item()
        if got != expected if exact else abs(got - expected) > 1e-3 * abs(expected):
            raise BenchError(
                f"step: {name} has loss {got} at step {number}, expected our STE's {expected}"
            )


def run(model: str, options: Options) -> Result:
    """Measure one training step of each variant.

    Args:
        model: mnist.
        options: how to measure; torch.compile needs a C++ compiler.

    Returns:
        Times; bars: our STE at most 1.05 times, FOGZO n = 1 at most 2.2 times the fastest plain
        PyTorch STE step, optimizer included.
    """
    recipe = recipes.get(MODELS[model])
    task = recipe.task(None, torch.device("cpu"))
    generator = torch.Generator().manual_seed(0)
    batch = task.batch(torch.randperm(task.examples, generator=generator)[: recipe.batch_size])
    quantized = recipe.model(0)
    assert isinstance(quantized, nn.Sequential)
    compiled = options.compiled and shutil.which("g++") is not None
    if options.compiled and not compiled:
        say("torch.compile is not measured: it needs g++ (apt-get install -y g++)")

    variants: dict[str, Step] = {}
    for name, peer in _peer_models(quantized, compiled).items():
        ours = copy.deepcopy(quantized)
        step = peers.ste_step(peer, batch, LR)
        check_equal(name, step, our_step(ours, fogzo.STE(ours), batch, LR), "Function" in name)
        variants[name] = step
    given = {"model": copy.deepcopy(quantized), "batch": batch, "lr": LR}
    for name, step in options.users("step", **given).items():
        ours = copy.deepcopy(quantized)
        check_equal(name, step, our_step(ours, fogzo.STE(ours), batch, LR), False)
        variants[name] = step
    names = list(variants)
    for name, estimator in (("our STE", fogzo.STE), ("FOGZO n = 1", fogzo.FOGZO)):
        ours = copy.deepcopy(quantized)
        variants[name] = our_step(ours, estimator(ours), batch, LR)

    elements = batch[0].numel()
    yardstick, copied = copy_yardstick(elements)
    # Samples of many steps: what a training loop repeats, not what it costs to come from elsewhere.
    times = measure(
        {**variants, "copy": yardstick},
        threads=options.threads,
        rounds=options.repeat,
        sample_seconds=0.02,
    )
    copy_times = times.pop("copy")
    divisor = fastest(times, names)
    return Result(
        op="step",
        shape={"model": model, "batch": recipe.batch_size, "weights": _weights(quantized)},
        times=times,
        bars=[Bar("our STE", divisor, 1.05), Bar("FOGZO n = 1", divisor, 2.2)],
        copy=copy_times,
        copied=copied,
    )


def _weights(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())
