"""Read the machine code of the exact kernels: what must not be in it, is not.

usage: static_check.py BUILD_TREE    (a CMake tree with the CPU objects)
"""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A fused multiply-add or an approximate reciprocal changes bits between machines.
INEXACT_CPU = re.compile(r"\tv?(fn?m(add|sub)|rcp|rsqrt)\w*")
WIDE = re.compile(r"%[yz]mm\d+|\tv[a-z0-9]+ +.*%xmm")
INEXACT_PTX = re.compile(r"\b(div\.full|fma\.)\S*|\S*\.(approx|ftz)\S*")
SPILL = re.compile(r"(?<!\d)([1-9]\d*) bytes (stack frame|spill stores|spill loads)")
HOT = re.compile(r"\tv(pmaddubsw|pmaddwd|fmadd231ps|pdpbusd)\s")
STACK = re.compile(r"\(%r[sb]p\b")
TORCH = re.compile(r"\btorch\b|\bATen\b|\bc10\b", re.IGNORECASE)
ARCHS = ("sm_80", "sm_90a", "sm_100a")


def lines_with(pattern: re.Pattern[str], text: str) -> list[str]:
    """The lines of text that the pattern finds, each once."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if pattern.search(line)))


def inexact_cpu(disassembly: str) -> list[str]:
    """Instructions that round differently from one float32 operation at a time."""
    return lines_with(INEXACT_CPU, disassembly)


def leaked_avx(disassembly: str) -> list[str]:
    """AVX instructions, which the portable objects must not hold."""
    return lines_with(WIDE, disassembly)


def spilled_loops(disassembly: str) -> list[str]:
    """Stack accesses in the innermost loops that multiply: registers ran out there."""
    lines = disassembly.splitlines()
    address = {
        m[1]: i for i, line in enumerate(lines) if (m := re.match(r" *([0-9a-f]+):\t", line))
    }
    found = []
    for end, line in enumerate(lines):
        jump = re.match(r" *[0-9a-f]+:\tj\w+ +([0-9a-f]+) ", line)
        start = address.get(jump[1], end) if jump else end
        loop = lines[start:end]
        inner = not any(re.search(r"\tj\w+ ", inside) for inside in loop)
        if inner and any(HOT.search(inside) for inside in loop):
            found += [inside.strip() for inside in loop if STACK.search(inside)]
    return found


def shared_functions(symbols: str) -> list[str]:
    """Weak functions (nm type W or u) of an object compiled for more than the base machine."""
    return [line for line in symbols.splitlines() if re.search(r"\s[Wu]\s", line)]


def inexact_ptx(ptx: str) -> list[str]:
    """Approximate, flushing or fused instructions in PTX."""
    return lines_with(INEXACT_PTX, re.sub(r"//.*", "", ptx))


def spills(ptxas_output: str) -> list[str]:
    """Lines in which ptxas -v reports a stack frame or spilled registers."""
    return lines_with(SPILL, ptxas_output)


def mentions_torch(files: Iterable[Path]) -> list[str]:
    """Lines of C++ sources that name torch."""
    return [f"{file}: {line}" for file in files for line in lines_with(TORCH, file.read_text())]


def run(*command: str | Path) -> str:
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"static: {command[0]} failed:\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


def check_objects(tree: Path) -> dict[str, list[str]]:
    """Findings by check for the CPU objects of a build tree."""
    objects = sorted((tree / "CMakeFiles/fogzo_cpu.dir/csrc/cpu").glob("*.o"))
    if not objects:
        raise SystemExit(f"static: no CPU objects under {tree}")
    found: dict[str, list[str]] = {}
    for path in objects:
        code = run("objdump", "-d", "--no-show-raw-insn", path)
        # Those hold the one operation that is promised within a tolerance.
        if "fma" not in path.name and "vnni" not in path.name:
            found[f"{path.stem}: exact arithmetic"] = inexact_cpu(code)
        if HOT.search(code):
            found[f"{path.stem}: no spills in its loops"] = spilled_loops(code)
        if any(name in path.name for name in ("avx2", "fma", "vnni")):
            found[f"{path.stem}: nothing the linker may share"] = shared_functions(run("nm", path))
        else:
            found[f"{path.stem}: runs on the base machine"] = leaked_avx(code)
    return found


def cuda_flags() -> list[str]:
    """The arithmetic flags that CMakeLists.txt gives the CUDA kernels."""
    text = (ROOT / "CMakeLists.txt").read_text()
    match = re.search(r"target_compile_options\(fogzo_cuda PRIVATE\s+([^)]*)\)", text)
    if match is None:
        raise SystemExit("static: CMakeLists.txt gives fogzo_cuda no options")
    return match[1].split()


def check_cuda(nvcc: str) -> dict[str, list[str]]:
    """Findings by check for each .cu file."""
    found: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder)
        for source in sorted((ROOT / "csrc/cuda").glob("*.cu")):
            base: list[str | Path] = [nvcc, "-std=c++17", "-O3", *cuda_flags(), source]
            base.append(f"-I{ROOT / 'csrc/include'}")
            run(*base, "-ptx", "-arch=compute_90", "-o", out / "kernel.ptx")
            ptx = (out / "kernel.ptx").read_text()
            if ".entry" not in ptx:
                raise SystemExit(f"static: {source.name} holds no kernel")
            found[f"{source.name}: exact PTX"] = inexact_ptx(ptx)
            for arch in ARCHS:
                report = run(*base, "-cubin", f"-arch={arch}", "-Xptxas=-v", "-o", out / "k.cubin")
                if "spill stores" not in report:
                    raise SystemExit(f"static: ptxas says nothing about {source.name}")
                found[f"{source.name}: {arch} has no spills and no stack"] = spills(report)
    return found


def main() -> int:
    found = check_objects(Path(sys.argv[1]))
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    found["csrc: free of torch"] = mentions_torch(sources)
    nvcc = shutil.which("nvcc")
    if nvcc:
        found |= check_cuda(nvcc)
    else:
        print("static: no nvcc: the CUDA kernels were not read")
    for name, lines in found.items():
        print(f"{'FAIL' if lines else 'ok  '} {name}")
        for line in lines[:5]:
            print(f"       {line}")
    failed = sum(bool(lines) for lines in found.values())
    print(f"{len(found) - failed} of {len(found)} static checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
