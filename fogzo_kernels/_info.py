"""What runs here, as far as it can be told without torch: versions, CPU, backends, files."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
from pathlib import Path
from typing import Any

BACKENDS = ("cpu", "triton", "cuda", "reference")
NATIVE = ("_cpu", "_cuda")


def _distribution(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Versions that may change a run's numbers, by distribution name."""
    import fogzo_kernels as fk

    return {
        "fogzo-kernels": fk.__version__,
        "python": platform.python_version(),
        "torch": _distribution("torch"),
        "triton": _distribution("triton"),
    }


def cpu_name() -> str:
    """The CPU's model name, family and model number, as far as the system gives them.

    Virtual machines give many CPUs one name, which the numbers tell apart.
    """
    try:
        text = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        text = ""
    first, _, _ = text.partition("\n\n")
    found = {name.strip(): value.strip() for name, _, value in map(_halves, first.splitlines())}
    name = found.get("model name") or platform.processor() or platform.machine()
    if "cpu family" in found and "model" in found:
        return f"{name} (family {found['cpu family']}, model {found['model']})"
    return name


def _halves(line: str) -> tuple[str, str, str]:
    return line.partition(":")


def instruction_set() -> str | None:
    """Which kernels the native CPU module runs (scalar, avx2, ..); None where it is not built."""
    import fogzo_kernels as fk

    if fk.why_not("cpu") is not None:
        return None
    isa: str = importlib.import_module("fogzo_kernels._cpu").isa()
    return isa


def _native_file(name: str) -> str | None:
    found = importlib.util.find_spec(f"fogzo_kernels.{name}")
    return found.origin if found else None


def described() -> dict[str, Any]:
    """The facts of `fogzo info --json` that need no torch.

    Returns:
        versions; cpu, cores, instruction_set; backends: by name None where used, else the reason
        why not; ahead: what committed rows put first on a GPU; files: by what they are.
    """
    import fogzo_kernels as fk

    from . import _ahead

    return {
        "versions": versions(),
        "cpu": cpu_name(),
        "cores": os.cpu_count(),
        "instruction_set": instruction_set(),
        "backends": {name: fk.why_not(name) for name in BACKENDS},
        "ahead": _ahead.lines(),
        "files": {
            "fogzo_kernels": str(Path(__file__).parent),
            **{name: _native_file(name) for name in NATIVE},
        },
    }


def lines(info: dict[str, Any]) -> list[str]:
    """The same for reading: one line a fact, `name: value`."""
    found = (f"{name} {value or 'not installed'}" for name, value in info["versions"].items())
    threads = f", {info['threads']} torch threads" if "threads" in info else ""
    result = [f"versions: {', '.join(found)}"]
    result.append(f"CPU: {info['cpu']}, {info['cores']} cores{threads}")
    if "device" in info:
        result.append(f"GPU: {info['device'] or 'none that torch can use'}")
    for name, reason in info["backends"].items():
        used = f"used ({info['instruction_set']} kernels)" if name == "cpu" else "used"
        result.append(f"{name}: {used if reason is None else f'not used: {reason}'}")
    order = "auto on a GPU: triton, then cuda, then the reference"
    result += [f"{order}; but {row}" for row in info["ahead"]] or [
        f"{order}: no committed row shows cuda ahead"
    ]
    return result + [f"{name} in: {path or 'not built'}" for name, path in info["files"].items()]
