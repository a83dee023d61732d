"""The two optional extension modules: loading them, and turning a status into the usual error."""

from __future__ import annotations

import functools
import importlib
from typing import Any, NoReturn

from . import _errors, _tables

BUILD_HINT = (
    "install a C++20 compiler and Python.h (Debian: apt-get install -y g++ python3-dev) and "
    "reinstall fogzo-kernels from source"
)


@functools.cache
def module(name: str) -> Any:
    """Extension module ``_cpu`` or ``_cuda``, or None where it is not built."""
    try:
        return importlib.import_module(f"fogzo_kernels.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"fogzo_kernels.{name}":
            raise
        return None


@functools.cache
def why_not_cpu() -> str | None:
    if module("_cpu") is None:
        return f"the native module fogzo_kernels._cpu is not built: {BUILD_HINT}"
    return None


@functools.cache
def why_not_cuda() -> str | None:
    cuda = module("_cuda")
    if cuda is None:
        return (
            "the native module fogzo_kernels._cuda is not built: install the CUDA toolkit (nvcc) "
            "and reinstall fogzo-kernels with FOGZO_CUDA=on"
        )
    return None if cuda.device_count() > 0 else "no CUDA device"


def cpu() -> Any:
    """The ``_cpu`` module; dispatch has asked ``why_not_cpu`` before."""
    return module("_cpu")


def stream(device: Any) -> int:
    """Torch's current CUDA stream on a device."""
    import torch

    return int(torch.cuda.current_stream(device).cuda_stream)


def table(surrogate: str, noise: str, device: Any) -> int:
    """Address of the atanh table on a device, 0 where the noise does not read it."""
    if surrogate != "tanh" or noise != "published":
        return 0
    if str(device) == "cpu":
        return _tables.atanh_table().buffer_info()[0]
    return int(_device_table(str(device)).data_ptr())


def table_for(calls: list[dict[str, Any]]) -> int:
    """The table's address on the CPU where the noise of any of these calls reads it, else 0."""
    for call in calls:
        draw = call["draw"]
        if draw.surrogate == "tanh":
            return table("tanh", draw.noise, "cpu")
    return 0


@functools.cache
def _device_table(device: str) -> Any:
    import torch

    return torch.tensor(_tables.atanh_table(), dtype=torch.float32, device=device)


def raise_on(op: str, name: str, status: int) -> None:
    """Do nothing for status 0, else raise the ValueError that the launcher's text describes."""
    if status:
        _raise(op, module(name).status_text(status))


def _raise(op: str, text: str) -> NoReturn:
    argument, _, rest = text.partition(" ")
    got, _, expected = rest.partition(", expected ")
    _errors.fail(op, argument, got, expected)
