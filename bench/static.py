"""`fogzo bench --static`: compile every Triton and CUDA kernel, read the machine code, bound times.

No GPU is needed. A finding (a spill, a missing tensor-core instruction, a narrow load, arithmetic
that is not exact) ends it with exit code 1.
"""

from __future__ import annotations

import importlib.util
import itertools
from dataclasses import dataclass

from fogzo_kernels import _dispatch, _launch
from fogzo_kernels._launch import Case, Kernel, pick

from . import _static_compile, _static_cuda, _static_cuda_table
from ._options import BenchError
from ._report import say
from ._static_compile import compiled
from ._static_read import Code
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


def instructions(code: Code, job: Work) -> int:
    """Instructions of one warp: straight on, the main loop as often as it runs.

    Slow paths count as if each were taken once.
    """
    return code.rest + code.loop * job.steps


def bound(machine: Machine, code: Code, job: Work, warps: int) -> Bound:
    """The roofline of one call."""
    issued = instructions(code, job) * warps * job.programs
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
            whole = bound(MACHINES[archs[0]], found.code, job, rows.warps).least
            return whole * elements / job.elements
    raise KeyError(f"{name} has no work named {work_of}")


@dataclass(frozen=True)
class Read:
    """One compiled kernel as it is printed; shared: bytes, warps: of a program, jobs: its calls."""

    title: str
    arch: int
    code: Code
    shared: int
    warps: int
    jobs: list[Work]
    findings: list[str]


def lines_of(read: Read) -> list[str]:
    """One kernel for reading: resources, then a line a shape, then the findings."""
    share = occupancy(read.code.registers, read.shared, read.warps, read.arch)
    resources = f"{read.code.registers:3} registers, {read.shared:6} bytes shared"
    lines = [f"sm_{read.arch} {read.title}: {resources}, occupancy {share:.2f}"]
    for job in read.jobs:
        each = instructions(read.code, job) * read.warps * 32 * job.programs / job.elements
        unit = "multiply-add" if job.kind else "element"
        text = f"  {job.shape}: {each:.4g} instructions an {unit}".replace("an m", "a m")
        if read.arch in MACHINES:
            least = bound(MACHINES[read.arch], read.code, job, read.warps)
            text += (
                f"; {MACHINES[read.arch].name} at least {least.least * 1e6:.1f} us (memory "
                f"{least.memory * 1e6:.1f}, arithmetic {least.arithmetic * 1e6:.1f}, "
                f"issue {least.issue * 1e6:.1f})"
            )
        lines.append(text)
    return lines + [f"  FAIL {finding}" for finding in read.findings]


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


def of_triton(kernel: Kernel, case: Case, arch: int) -> Read:
    found, warps = compiled(kernel, case, arch), pick(kernel.name, arch).warps
    title, jobs = f"{kernel.name}, {case.name}", work(kernel, case, arch)
    return Read(title, arch, found.code, found.shared, warps, jobs, found.findings)


def of_cuda(kernel: _static_cuda.Kernel) -> Read:
    jobs = _static_cuda_table.jobs(*_static_cuda.parts_of(kernel.label))
    title, warps = f"{kernel.op}, cuda {kernel.label}", -(-kernel.threads // 32)
    return Read(title, kernel.arch, kernel.code, kernel.shared, warps, jobs, kernel.findings)


def run(archs: tuple[int, ...], ops: list[str]) -> int:
    """Compile and read the kernels of the named operations (none: of all).

    Those of a kind that cannot be compiled here, for want of triton or nvcc, are left out with a
    line that says so.

    Returns:
        0, or 1 with a finding.

    Raises:
        BenchError: nothing to compile with, or operations without a kernel.
    """
    absent = [_static_compile.absent(), _static_cuda.absent()]
    if all(absent):
        raise BenchError("--static: " + "; ".join(f"{reason}" for reason in absent))
    for reason in filter(None, absent):
        say(f"static: {reason}")
    rooms = list(dict.fromkeys(_dispatch.OPS.values()))
    of_op = {} if absent[0] else _launch.by_room()
    cuda = [] if absent[1] else _static_cuda.kernels(ops)
    chosen = [op for op in rooms if not ops or op in ops]
    if not any(of_op.get(op) for op in chosen) and not cuda:
        raise BenchError(f"--static found no kernel of {', '.join(ops)}", 2)
    total = failed = 0
    for arch in archs:
        for op in chosen:
            triton = (
                of_triton(kernel, case, arch)
                for kernel in of_op.get(op, ())
                if arch in _launch.TABLE[kernel.name]
                for case in kernel.cases
            )
            native = (of_cuda(kernel) for kernel in cuda if (kernel.op, kernel.arch) == (op, arch))
            for read in itertools.chain(triton, native):
                total, failed = total + 1, failed + bool(read.findings)
                print("\n".join(lines_of(read)), flush=True)
    say(f"static: {total - failed} of {total} compiled kernels have no finding")
    return 1 if failed else 0
