"""`fogzo bench --static`: compile every Triton kernel, read its machine code, bound its time.

No GPU is needed. A finding (a spill, a missing tensor-core instruction, a narrow load, arithmetic
that is not exact) ends it with exit code 1.
"""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass

from fogzo_kernels import _launch
from fogzo_kernels._launch import Case, Kernel, pick

from ._options import BenchError
from ._report import say
from ._static_compile import Compiled, compiled, require
from ._static_work import Work, work

# registers, threads, programs and bytes of shared memory that a multiprocessor has
REGISTERS, THREADS, PROGRAMS = 65536, 2048, 32
SHARED_EACH = {80: 164 * 1024, 90: 228 * 1024, 100: 228 * 1024}
RESERVED = 1024  # bytes of shared memory that the system takes from each program


@dataclass(frozen=True)
class Machine:
    """Rates that a program reaches: bytes, operations by kind, instructions of a warp, a second."""

    name: str
    bytes: float
    operations: dict[str, float]
    issue: float


# What a good kernel reaches; clock: the boost clock, four instructions a cycle and multiprocessor.
MACHINES = {
    90: Machine(
        "H200", 4.3e12, {"half": 790e12, "int8": 1580e12, "float8": 1580e12}, 132 * 4 * 1.98e9
    )
}


@dataclass(frozen=True)
class Bound:
    """Seconds that one call needs at least: for its bytes, its operations, its instructions."""

    memory: float
    arithmetic: float
    issue: float

    @property
    def least(self) -> float:
        return max(self.memory, self.arithmetic, self.issue)


def occupancy(registers: int, shared: int, warps: int, arch: int) -> float:
    """The share of a multiprocessor's warps that can be resident.

    Registers are given to a warp by 256 at a time.

    Example:
        >>> occupancy(32, 0, 4, 90)
        1.0
    """
    each = -(-max(registers, 1) * 32 // 256) * 256 * warps
    programs = min(
        REGISTERS // each,
        THREADS // (32 * warps),
        PROGRAMS,
        SHARED_EACH[arch] // (shared + RESERVED),
    )
    return programs * warps * 32 / THREADS


def instructions(found: Compiled, job: Work) -> int:
    """Instructions of one warp: straight on, the main loop as often as it runs.

    Slow paths count as if each were taken once.
    """
    return found.code.rest + found.code.loop * job.steps


def bound(machine: Machine, found: Compiled, job: Work, warps: int) -> Bound:
    """The roofline of one call."""
    issued = instructions(found, job) * warps * job.programs
    rate = machine.operations.get(job.kind, 1.0)
    return Bound(job.bytes / machine.bytes, job.operations / rate, issued / machine.issue)


def least(name: str, case: str, work_of: str, elements: int, gpu: str | None) -> float | None:
    """Seconds that a GPU needs at least for one shape of a kernel's case, by its elements.

    None where the GPU's rates are not known here, or triton is missing.
    """
    archs = [arch for arch, machine in MACHINES.items() if gpu and machine.name in gpu]
    if not archs or importlib.util.find_spec("triton") is None:
        return None
    (kernel,) = [kernel for kernel in _launch.kernels() if kernel.name == name]
    (chosen,) = [one for one in kernel.cases if one.name == case]
    for job in work(kernel, chosen, archs[0]):
        if job.shape.endswith(work_of):
            found = compiled(kernel, chosen, archs[0])
            rows = pick(name, archs[0])
            whole = bound(MACHINES[archs[0]], found, job, rows.warps).least
            return whole * elements / job.elements
    raise KeyError(f"{name} has no work named {work_of}")


def lines_of(kernel: Kernel, case: Case, arch: int, found: Compiled) -> list[str]:
    """One case for reading: resources, then a line a shape, then the findings."""
    warps = pick(kernel.name, arch).warps
    share = occupancy(found.code.registers, found.shared, warps, arch)
    resources = f"{found.code.registers:3} registers, {found.shared:6} bytes shared"
    lines = [f"sm_{arch} {kernel.name}, {case.name}: {resources}, occupancy {share:.2f}"]
    for job in work(kernel, case, arch):
        each = instructions(found, job) * warps * 32 * job.programs / job.elements
        unit = "multiply-add" if job.kind else "element"
        text = f"  {job.shape}: {each:.4g} instructions an {unit}".replace("an m", "a m")
        if arch in MACHINES:
            least = bound(MACHINES[arch], found, job, warps)
            text += (
                f"; {MACHINES[arch].name} at least {least.least * 1e6:.1f} us (memory "
                f"{least.memory * 1e6:.1f}, arithmetic {least.arithmetic * 1e6:.1f}, "
                f"issue {least.issue * 1e6:.1f})"
            )
        lines.append(text)
    return lines + [f"  FAIL {finding}" for finding in found.findings]


def architectures(text: str) -> tuple[int, ...]:
    """80, 90, 100 out of "80,90,100".

    Raises:
        ValueError: another number.

    Example:
        >>> architectures("80,90")
        (80, 90)
    """
    known = [str(arch) for arch in _launch.ARCHITECTURES]
    parts = text.split(",")
    if not all(part in known for part in parts):
        raise ValueError(f"got {text!r}, expected numbers of {', '.join(known)}, by commas")
    return tuple(int(part) for part in parts)


def run(archs: tuple[int, ...], ops: list[str]) -> int:
    """Compile and read the kernels of the named operations (none: of all).

    Returns:
        0, or 1 with a finding.

    Raises:
        BenchError: no triton, or operations without a kernel.
    """
    require()
    kernels = [
        kernel
        for kernel in _launch.kernels()
        if not ops or any(f".{op}." in f"{kernel.function.__module__}." for op in ops)
    ]
    if not kernels:
        raise BenchError(f"--static found no Triton kernel of {', '.join(ops)}", 2)
    cases = failed = 0
    for arch in archs:
        for kernel in kernels:
            if arch not in _launch.TABLE[kernel.name]:
                continue
            for case in kernel.cases:
                found = compiled(kernel, case, arch)
                cases, failed = cases + 1, failed + bool(found.findings)
                print("\n".join(lines_of(kernel, case, arch, found)), flush=True)
    say(f"static: {cases - failed} of {cases} compiled kernels have no finding")
    return 1 if failed else 0
