"""Where a bench's tensors lie: torch's default device, which `--device` sets."""

from __future__ import annotations

from typing import TypeVar

import torch

T = TypeVar("T")
# The backend that is measured on each device.
BACKEND = {"cpu": "cpu", "cuda": "triton"}


def current() -> torch.device:
    return torch.get_default_device()


def on_gpu() -> bool:
    return current().type == "cuda"


def generator(seed: int = 0) -> torch.Generator:
    """A generator of the current device."""
    return torch.Generator(current()).manual_seed(seed)


def gpu_name() -> str | None:
    """The GPU that is measured, None on the CPU."""
    return torch.cuda.get_device_name(current()) if on_gpu() else None


def architecture() -> int | None:
    """90 for compute capability 9.0, None on the CPU."""
    if not on_gpu():
        return None
    major, minor = torch.cuda.get_device_capability(current())
    return 10 * major + minor


def pick(cpu: T, gpu: T) -> T:
    """A size for the CPU, or the one that fills a GPU."""
    return gpu if on_gpu() else cpu
