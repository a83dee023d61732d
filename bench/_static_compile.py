"""Compile the launch table's kernels for GPUs that are not here, and keep what was read."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from fogzo_kernels._launch import Case, Kernel, pick

from . import _static_read
from ._machine import SOURCE
from ._options import BenchError
from ._static_read import Code

# Pointers to a number for many elements, a program or a tensor; tables that are looked up in.
SCALARS = ("atanh", "scale", "bias", "x_scale", "differences", "ends", "table")


@dataclass(frozen=True)
class Compiled:
    """One case of a kernel on one architecture: its code, bytes of shared memory, findings."""

    code: Code
    shared: int
    findings: list[str]


def require() -> None:
    """Triton, compiling and not interpreting.

    Raises:
        BenchError: where it is missing, or TRITON_INTERPRET is set.
    """
    if os.environ.get("TRITON_INTERPRET") == "1":
        raise BenchError("--static compiles: unset TRITON_INTERPRET")
    try:
        import triton  # noqa: F401
    except ModuleNotFoundError as error:
        raise BenchError("--static needs triton: pip install triton") from error


def signature(kernel: Kernel, case: Case, arch: int) -> tuple[dict[str, str], dict[str, Any]]:
    """Types by argument ("constexpr" for constants), and constants: the case's and the blocks."""
    constants = {**case.constexprs, **pick(kernel.name, arch).blocks}
    names = kernel.function.arg_names
    return {n: "constexpr" if n in constants else case.types[n] for n in names}, constants


def options(kernel: Kernel, arch: int) -> dict[str, Any]:
    """As Kernel.launch gives them."""
    row = pick(kernel.name, arch)
    return {"num_warps": row.warps, "num_stages": row.stages, "enable_fp_fusion": False}


def compiled(kernel: Kernel, case: Case, arch: int) -> Compiled:
    """Compile and read a case, or take both from the cache.

    A result is kept by the hash of the kernel's source and of all it calls, the case, the launch
    table's row, triton's version and the readers' source.
    """
    from triton import __version__ as version

    types, constants = signature(kernel, case, arch)
    words = [
        version,
        kernel.function.cache_key,
        str(arch),
        repr(options(kernel, arch)),
        repr(types),
    ]
    words += [repr(sorted((name, str(value)) for name, value in constants.items()))]
    words += [repr((case.aligned, case.loads16, case.narrow, case.tensor, kernel.exact))]
    words += [Path(__file__).read_text(), Path(_static_read.__file__).read_text()]
    path = folder() / (hashlib.sha256("\0".join(words).encode()).hexdigest() + ".json")
    if path.exists():
        kept = json.loads(path.read_text())
        return Compiled(Code(**kept["code"]), kept["shared"], kept["findings"])
    found = compile_and_read(kernel, case, arch)
    path.parent.mkdir(parents=True, exist_ok=True)
    scratch = path.with_suffix(f".{os.getpid()}")
    scratch.write_text(json.dumps(asdict(found)))
    scratch.replace(path)
    return found


def folder() -> Path:
    """build/static of the source tree, or the user's cache."""
    if (SOURCE / "setup.py").exists():
        return SOURCE / "build/static"
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "fogzo/static"


def compile_and_read(kernel: Kernel, case: Case, arch: int) -> Compiled:
    """Compile a case for an architecture and read its PTX and its machine code."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    types, constants = signature(kernel, case, arch)
    divisible = {
        (at,): [["tt.divisibility", 16]]
        for at, name in enumerate(types)
        if name in case.aligned and types[name] != "constexpr"
    }
    source = ASTSource(kernel.function, types, constants, divisible)
    try:
        made = triton.compile(
            source, target=GPUTarget("cuda", arch, 32), options=options(kernel, arch)
        )
    except triton.TritonError as error:
        cause: BaseException = error
        while cause.__cause__ is not None:  # the outer ones point at the calls
            cause = cause.__cause__
        last = str(cause).strip().splitlines()[-1]
        return Compiled(Code({}, 0, 0, 0, 0), 0, [f"does not compile: {last}"])
    usage, sass = disassembled(made.asm["cubin"])
    code = _static_read.machine_code(usage, sass)
    arguments = [name for name, kind in types.items() if kind != "constexpr"]
    wide = {at: name for at, name in enumerate(arguments) if is_stream(case, name)}
    found = _static_read.findings(
        made.asm["ptx"],
        code,
        made.metadata.shared,
        arch,
        exact=kernel.exact,
        tensor=case.tensor,
        wide=wide if case.loads16 else None,
    )
    return Compiled(code, made.metadata.shared, found)


def is_stream(case: Case, name: str) -> bool:
    """Whether a program loads neighbouring elements there."""
    scalar = name in SCALARS or name.endswith("_at")
    return case.types[name].startswith("*") and not scalar and name not in case.narrow


def disassembled(cubin: bytes) -> tuple[str, str]:
    """What triton's own cuobjdump says of the resources and the machine code of a cubin."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, sass = (
            subprocess.run([tool, what, file.name], capture_output=True, text=True, check=True)
            for what in ("--dump-resource-usage", "-sass")
        )
    return usage.stdout, sass.stdout
