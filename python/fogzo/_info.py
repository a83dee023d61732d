"""What runs here: versions, CPU, backends and why one is not used, where files are."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

import torch

import fogzo_kernels as fk

_BACKENDS = ("cpu", "triton", "cuda", "reference")
_NATIVE = ("_cpu", "_cuda")


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def version() -> str:
    """Version of fogzo-kernels."""
    return str(fk.__version__)


def versions() -> dict[str, str | None]:
    """Versions that may change a run's numbers, by distribution name."""
    return {
        "fogzo-kernels": version(),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "triton": _distribution("triton"),
    }


def cpu_name() -> str:
    """The CPU's model name, as the system gives it."""
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return platform.processor() or platform.machine()
    for line in text.splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def instruction_set() -> str | None:
    """Which kernels the native CPU module runs (scalar, avx2, ..); None where it is not built."""
    if fk.why_not("cpu") is not None:
        return None
    isa: str = importlib.import_module("fogzo_kernels._cpu").isa()
    return isa


def _native_file(name: str) -> str | None:
    found = importlib.util.find_spec(f"fogzo_kernels.{name}")
    return found.origin if found else None


def info_object() -> dict[str, Any]:
    """Everything `fogzo info --json` prints.

    Returns:
        versions; cpu, cores, threads, instruction_set; device (the CUDA device's name or None);
        backends: by name None where used, else the reason why not; files: by what they are.
    """
    from .recipes.mnist import DATA

    return {
        "versions": versions(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "instruction_set": instruction_set(),
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "backends": {name: fk.why_not(name) for name in _BACKENDS},
        "files": {
            "fogzo": str(Path(__file__).parent),
            "fogzo_kernels": str(Path(str(fk.__file__)).parent),
            **{name: _native_file(name) for name in _NATIVE},
            "mnist": str(DATA),
        },
    }


def info_lines() -> list[str]:
    """The same for reading: one line a fact, `name: value`."""
    info = info_object()
    found = (f"{name} {value or 'not installed'}" for name, value in info["versions"].items())
    lines = [f"versions: {', '.join(found)}"]
    lines.append(f"CPU: {info['cpu']}, {info['cores']} cores, {info['threads']} torch threads")
    lines.append(f"GPU: {info['device'] or 'none that torch can use'}")
    for name, reason in info["backends"].items():
        used = f"used ({info['instruction_set']} kernels)" if name == "cpu" else "used"
        lines.append(f"{name}: {used if reason is None else f'not used: {reason}'}")
    lines += [f"{name} in: {path or 'not built'}" for name, path in info["files"].items()]
    return lines
