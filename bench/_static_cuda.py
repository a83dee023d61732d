"""Read the CUDA kernels out of the object files that the normal build makes."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import asdict, dataclass
from pathlib import Path

from . import _static_cuda_table, _static_read, _static_wgmma
from ._machine import SOURCE
from ._options import BenchError
from ._static_compile import folder
from ._static_cuda_table import TABLE, Arguments, Expected, op_of
from ._static_read import Code

MACHINE = {80: "sm_80", 90: "sm_90a", 100: "sm_100a"}
ARCHS = "80-real;90a-real;100a-real;90-virtual"
# 16 bytes of each thread, or of whole blocks by the copy engine
WIDE_LOAD = re.compile(r"\b(?:LDG|LDGSTS)\.\S*128\b|\b(?:UBLKCP|UTMALDG)\b")
WIDE_STORE = re.compile(r"\bSTG\.\S*128\b|\bUTMASTG\b")


@dataclass(frozen=True)
class Kernel:
    """One compiled kernel on one architecture; label: its name and template arguments."""

    arch: int
    op: str
    label: str
    code: Code
    shared: int
    threads: int
    findings: list[str]


def absent() -> str | None:
    """Why no CUDA kernel can be read here; None where they can."""
    lack = [name for name in ("nvcc", "cmake", "ninja", "c++filt") if tool(name) is None]
    if not (SOURCE / "csrc/cuda").exists():
        lack = ["source tree"]
    elif not cuobjdump():
        lack.append("cuobjdump (on PATH, beside nvcc or in triton's package)")
    return f"no {' and no '.join(lack)}: the CUDA kernels are not read" if lack else None


def tool(name: str) -> str | None:
    """Beside the interpreter first, as setup.py looks."""
    return shutil.which(name, path=str(Path(sys.executable).parent)) or shutil.which(name)


def cuobjdump() -> str | None:
    """The CUDA toolkit's, else the one inside triton's package."""
    import importlib.util

    folders = [os.environ.get("PATH", "")]
    nvcc = tool("nvcc")
    if nvcc is not None:
        said = subprocess.run(
            [nvcc, "--dryrun", "x.cu"], capture_output=True, text=True, check=False
        )
        folders += re.findall(r"_HERE_=(\S+)", said.stderr)
    spec = importlib.util.find_spec("triton")
    if spec is not None and spec.origin is not None:
        folders.append(str(Path(spec.origin).parent / "backends/nvidia/bin"))
    return next(filter(None, (shutil.which("cuobjdump", path=each) for each in folders)), None)


def tree() -> Path:
    """The CMake tree of an earlier build with CUDA for all architectures, else one of its own."""
    built = []
    for cache in (SOURCE / "build").glob("*/CMakeCache.txt"):
        text = cache.read_text()
        others = ("FOGZO_CUDA:STRING=off\n", "FOGZO_CUDA_ON_HOST:BOOL=ON\n")
        wanted = f"FOGZO_CUDA_ARCHS:STRING={ARCHS}\n" in text
        if wanted and not any(other in text for other in others):
            built.append(cache.parent)
    return max(built, key=lambda path: path.stat().st_mtime, default=SOURCE / "build/cuda")


def objects(ops: list[str]) -> list[Path]:
    """The up-to-date object files of the named operations (none: of all).

    Raises:
        BenchError: they do not compile.
    """
    names = sorted(path.name for path in (SOURCE / "csrc/cuda").glob("*.cu"))
    names = [name for name in names if not ops or op_of(name.partition(".")[0]) in ops]
    where = tree()
    targets = [f"CMakeFiles/{library_of(name)}.dir/csrc/cuda/{name}.o" for name in names]
    cmake = str(tool("cmake"))
    # Without the modules: what an isolated build of them was told of may be gone.
    options = [f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}", "-DFOGZO_MODULES=OFF", "-DFOGZO_CUDA=on"]
    configure = [cmake, "-S", str(SOURCE), "-B", str(where), "-G", "Ninja", *options]
    for command in (configure, [cmake, "--build", str(where), "--target", *targets]):
        if not names:
            break
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise BenchError(f"--static: the CUDA kernels do not compile:\n{done.stdout[-4000:]}")
    return [where / target for target in targets]


def library_of(source: str) -> str:
    """The CMake target that compiles a source: one file is for compute capability 9.0 alone.

    Example:
        >>> library_of("noise.cu"), library_of("probe_matmul_wgmma.cu")
        ('fogzo_cuda', 'fogzo_cuda_wgmma')
    """
    return "fogzo_cuda_wgmma" if "wgmma" in source else "fogzo_cuda"


def kernels(ops: list[str]) -> list[Kernel]:
    """Every kernel of the named operations (none: of all), read or taken from the cache."""
    found = [kernel for path in objects(ops) for kernel in read(path)]
    compiled = {(kernel.arch, kernel.label.partition("<")[0]) for kernel in found}
    for name, expected in TABLE.items():
        if ops and expected.op not in ops:
            continue
        for arch in expected.architectures:
            if (arch, name) not in compiled:
                lack = ["_static_cuda_table.py has it, and it is not compiled"]
                found.append(Kernel(arch, expected.op, name, Code({}, 0, 0, 0, 0), 0, 32, lack))
    return found


def read(path: Path) -> list[Kernel]:
    """The kernels of one object file; kept by its hash and that of the readers' source."""
    readers = (_static_read, _static_wgmma, _static_cuda_table)
    sources = [__file__, *(reader.__file__ for reader in readers)]
    words = [path.read_bytes(), *(Path(str(source)).read_bytes() for source in sources)]
    kept = folder() / (hashlib.sha256(b"\0".join(words)).hexdigest() + ".json")
    if kept.exists():
        return [
            Kernel(**{**row, "code": Code(**row["code"])}) for row in json.loads(kept.read_text())
        ]
    found = dissected(path)
    kept.parent.mkdir(parents=True, exist_ok=True)
    scratch = kept.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps([asdict(kernel) for kernel in found]))
    scratch.replace(kept)
    return found


def dissected(path: Path) -> list[Kernel]:
    """Take an object file apart: resources and machine code by architecture, PTX for them all."""

    def dump(*options: str) -> str:
        command = [str(cuobjdump()), *options, str(path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout

    op = op_of(path.name.partition(".")[0])
    entries = split_ptx(dump("-ptx"))
    found = []
    built = set(re.findall(r"\.(sm_\w+)\.cubin", dump("-lelf")))
    for arch, name in MACHINE.items():
        if name not in built:
            continue
        usage = dict(
            re.findall(r"Function (\w+):\n(.*)", dump("--dump-resource-usage", "-arch", name))
        )
        parts = re.split(r"\n\s*Function : (\w+)\n", dump("-sass", "-arch", name))
        sass = dict(zip(parts[1::2], parts[2::2], strict=True))
        for symbol, label in zip(sass, demangled(list(sass)), strict=True):
            texts = (usage[symbol], sass[symbol], entries.get(symbol))
            found.append(judged(arch, op, label, *texts))
    return found


def demangled(symbols: list[str]) -> list[str]:
    """Names with template arguments, without types, namespace and parameters."""
    text = subprocess.run(
        ["c++filt"], input="\n".join(symbols), capture_output=True, text=True, check=True
    ).stdout
    return [label_of(line) for line in text.splitlines()]


def label_of(signature: str) -> str:
    """noise_kernel<0, 1> of "void fogzo::noise_kernel<0, 1>(fogzo::NoiseJob)".

    Example:
        >>> label_of("void fogzo::f<(int)2, fogzo::Shape<8> >(fogzo::Job)")
        'f<2, Shape<8>>'
    """
    text = re.sub(r"\((?:int|bool|unsigned int|long)\)", "", signature)
    text = text.replace("(anonymous namespace)::", "").replace("fogzo::", "").replace("> >", ">>")
    return text.removeprefix("void ").partition("(")[0]


def parts_of(label: str) -> tuple[str, Arguments]:
    """The name and the template's arguments, each as it is written.

    Example:
        >>> parts_of("f<2, Shape<8, 4>>")
        ('f', ('2', 'Shape<8, 4>'))
    """
    name, _, inner = label.partition("<")
    parts: list[str] = []
    depth = 0
    for part in filter(None, inner.removesuffix(">").split(", ")):
        parts[-1:] = [f"{parts[-1]}, {part}"] if depth else [*parts[-1:], part]
        depth += part.count("<") - part.count(">")
    return name, tuple(parts)


def split_ptx(ptx: str) -> dict[str, str]:
    """The text of each kernel; functions that kernels call belong to them all."""
    parts = re.split(r"(?=^(?:\.visible |\.weak )?\.(?:entry|func)\b)", ptx, flags=re.M)
    functions = "".join(part for part in parts[1:] if ".func" in part.partition("(")[0])
    entries = {}
    for part in parts[1:]:
        name = re.match(r"(?:\.visible |\.weak )?\.entry (\w+)", part)
        if name is not None:
            entries[name[1]] = part + functions
    return entries


def judged(arch: int, op: str, label: str, usage: str, sass: str, ptx: str | None) -> Kernel:
    """One kernel of an operation with its findings."""
    code = _static_read.machine_code(usage, sass)
    name, arguments = parts_of(label)
    expected = TABLE.get(name)
    bound = re.search(r"\.maxntid (\d+)", ptx or "")
    threads = int(bound[1]) if bound else 0
    static = int((re.search(r"SHARED:(\d+)", usage) or ["", "0"])[1])
    if expected is None:
        found = [f"_static_cuda_table.py says nothing of {name}"]
        return Kernel(arch, op, label, code, static, threads or 32, found)
    shared = static + _number(expected.shared, arguments)
    tensor = expected.tensor if isinstance(expected.tensor, str) else expected.tensor(arguments)
    found = _static_read.resources(code, shared, arch)
    if tensor and tensor not in code.counts:
        used = [name for name in code.counts if _static_read.is_tensor(name)]
        found.append(f"no {tensor}; tensor-core instructions: {', '.join(used) or 'none'}")
    found += narrow(expected, arguments, sass, ptx) + _static_wgmma.touched_in_flight(sass)
    if ptx is None and (expected.exact or not threads):
        found.append("no PTX to read its arithmetic and its threads from")
    elif not threads:
        found.append("no __launch_bounds__: registers for 1024 threads are all it may use")
    if expected.exact:
        found += [f"not exact: {line}" for line in _static_read.inexact(ptx or "")]
    return Kernel(arch, op, label, code, shared, threads or 32, found)


def narrow(expected: Expected, arguments: Arguments, sass: str, ptx: str | None) -> list[str]:
    """Arrays that are not read or written 16 bytes at a time, though they lie that way."""
    found = []
    for what, pattern, declared in (
        ("read", WIDE_LOAD, expected.loads16),
        ("written", WIDE_STORE, expected.stores16),
    ):
        wanted = _number(declared, arguments)
        got = len(pattern.findall(sass))
        if got < wanted:
            found.append(
                f"{got} instructions for 16 bytes, expected one for each of {wanted} arrays {what}"
            )
    wanted = _number(expected.loads16, arguments)
    arrays = _static_read.wide_arrays(ptx) if ptx else None
    if arrays is not None and len(arrays) < wanted:
        found.append(f"{len(arrays)} arrays are read 16 bytes at a time, expected {wanted}")
    return found


def _number(value: object, arguments: Arguments) -> int:
    return int(value(arguments)) if callable(value) else int(str(value))
