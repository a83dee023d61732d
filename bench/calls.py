"""What a call costs where its work is next to nothing: each operation on a weight of 8 x 8."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch

import fogzo_kernels as fk

from . import _backends, _device
from ._measure import measure
from ._options import Options
from ._report import Bar, Result, copy_yardstick, say

TESTS = ("test_plans*.py",)
ABOUT = "what a call of each operation costs, on a weight of 8 x 8"
TAKES = {"backend": ""}
SIZE = (8, 8)
OVER_ADD = 10e-6  # seconds that a call on one weight may take beyond torch.add's
ADD = "torch.add"
Call = Callable[[], Any]


def cases(options: Options) -> list[Callable[[], Result]]:
    if _device.on_gpu():
        say("calls: not measured, a call on a GPU returns before it is done")
        return []
    return [partial(run, name, call, options) for name, call in calls().items()]


def calls() -> dict[str, Call]:
    """A call of every operation, by its name and what is special about it."""
    generator = torch.Generator().manual_seed(0)
    w, g = (torch.randn(SIZE, generator=generator) for _ in range(2))
    grid = fk.Grid("mid-rise", 2)
    scale = fk.compute_scale(w, grid)
    codes = fk.quantize(w, scale, grid)
    packed = fk.pack(codes, 2)
    x, x_scale = fk.quantize_activation(w)
    differences = torch.tensor([0.5])
    draw: dict[str, Any] = {"seed": 1, "step": 2}
    mix: dict[str, Any] = {**draw, "gamma": 0.1, "norm": torch.tensor(2.0)}
    return {
        "quantize": lambda: fk.quantize(w, scale, grid),
        "dequantize": lambda: fk.dequantize(codes, scale, grid),
        "pack": lambda: fk.pack(codes, 2),
        "unpack": lambda: fk.unpack(packed),
        "fake_quantize": lambda: fk.fake_quantize(w, scale, grid),
        "fake_quantize_backward": lambda: fk.fake_quantize_backward(
            g, w, scale, grid, needs_scale_grad=False
        ),
        "fake_quantize_backward, scale": lambda: fk.fake_quantize_backward(g, w, scale, grid),
        "compute_scale": lambda: fk.compute_scale(w, grid),
        "noise": lambda: fk.noise(SIZE, "clipped", tensor=0, **draw),
        "whitened_norm": lambda: fk.whitened_norm([g], [scale], "clipped"),
        "perturb_quantize": lambda: fk.perturb_quantize(w, g, scale, grid, tensor=0, **mix),
        "perturb_quantize_many": lambda: fk.perturb_quantize_many(
            [w], [g], [scale], grid, tensors=[0], **mix
        ),
        "assemble_gradient": lambda: fk.assemble_gradient(
            g, scale, differences, "clipped", tensor=0, **mix
        ),
        "assemble_gradient_many": lambda: fk.assemble_gradient_many(
            [g], [scale], differences, "clipped", tensors=[0], **mix
        ),
        "probe_matmul": lambda: fk.probe_matmul(w, packed, scale, grid),
        "probe_matmul, int8": lambda: fk.probe_matmul(x, packed, scale, grid, x_scale=x_scale),
        "quantize_activation": lambda: fk.quantize_activation(w),
        "hadamard": lambda: fk.hadamard(w),
        "hadamard_quantize": lambda: fk.hadamard_quantize(w, grid),
    }


def run(name: str, call: Call, options: Options) -> Result:
    """Measure one operation's call against torch.add of two tensors of that size.

    Args:
        name: of the operation, and behind a comma what is special.
        call: as ``calls`` has it.
        options: backend and how to measure.

    Returns:
        Times; of operations on one weight the bar: torch.add's time and 10 us, as a ratio.
    """
    op = name.partition(",")[0]
    a, b = torch.ones(SIZE), torch.ones(SIZE)
    yardstick, copied = copy_yardstick(a.numel())
    times = measure(
        {
            **_backends.calls(op, call, options),
            ADD: lambda: torch.add(a, b),
            "copy": yardstick,
        },
        threads=options.threads,
        rounds=options.repeat,
    )
    add = times[ADD].median
    barred = "cpu" in times and not op.endswith("_many")
    return Result(
        op="calls",
        shape={"call": name, "size": list(SIZE)},
        copy=times.pop("copy"),
        times=times,
        bars=[Bar("cpu", ADD, round(1 + OVER_ADD / add, 4))] if barred else [],
        copied=copied,
    )
