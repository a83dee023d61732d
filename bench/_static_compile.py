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

from . import _static_read
from ._machine import SOURCE
from ._options import BenchError
from ._static_read import Code


@dataclass(frozen=True)
class Compiled:
    """One variant for one architecture: its code, bytes of shared memory, findings."""

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


def compiled(variant: Any) -> Compiled:
    """Compile and read a variant of the launch table, or take both from the cache.

    A result is kept by the hash of the kernel's source and of all it calls, its types, constants
    and options, triton's version and the reader's source.
    """
    from triton import __version__ as version

    words = [version, variant.kernel.cache_key, repr(sorted(variant.types.items()))]
    words += [repr(sorted((k, str(v)) for k, v in variant.constants.items()))]
    words += [repr(sorted(variant.options.items())), repr(variant.arch), repr(variant.exact)]
    words += [repr(sorted(variant.ragged)), repr(sorted(variant.narrow)), variant.tensor]
    words += [Path(__file__).read_text(), Path(_static_read.__file__).read_text()]
    path = folder() / (hashlib.sha256("\0".join(words).encode()).hexdigest() + ".json")
    if path.exists():
        kept = json.loads(path.read_text())
        return Compiled(Code(**kept["code"]), kept["shared"], kept["findings"])
    found = compile_and_read(variant)
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


def compile_and_read(variant: Any) -> Compiled:
    """Compile a variant for its architecture and read PTX and machine code.

    Raises:
        BenchError: a kernel that does not compile.
    """
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    signature, attributes = {}, {}
    for at, name in enumerate(variant.kernel.arg_names):
        constant = name in variant.constants
        signature[name] = "constexpr" if constant else variant.types[name]
        if not constant and name not in variant.ragged and signature[name] not in ("fp32", "fp64"):
            attributes[(at,)] = [["tt.divisibility", 16]]
    source = ASTSource(variant.kernel, signature, dict(variant.constants), attributes)
    target = GPUTarget("cuda", variant.arch, 32)
    try:
        kernel = triton.compile(source, target=target, options=variant.options)
    except triton.TritonError as error:
        return Compiled(Code({}, 0, 0, 0, 0), 0, [f"does not compile: {last_line(error)}"])
    usage, sass = disassembled(kernel.asm["cubin"])
    code = _static_read.machine_code(usage, sass)
    arguments = [name for name, kind in signature.items() if kind != "constexpr"]
    wide = {
        at: name
        for at, name in enumerate(arguments)
        if signature[name].startswith("*") and name not in variant.narrow
    }
    found = _static_read.findings(
        kernel.asm["ptx"], code, kernel.metadata.shared, variant.arch,
        exact=variant.exact, tensor=variant.tensor, wide=wide,
    )  # fmt: skip
    return Compiled(code, kernel.metadata.shared, found)


def last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]


def disassembled(cubin: bytes) -> tuple[str, str]:
    """What triton's own cuobjdump says of the resources and the machine code of a cubin."""
    import triton

    tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        usage, sass = (
            subprocess.run(
                [tool, what, file.name], capture_output=True, text=True, check=True
            ).stdout
            for what in ("--dump-resource-usage", "-sass")
        )
    return usage, sass
