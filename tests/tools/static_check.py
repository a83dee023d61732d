"""Read the machine code of the exact CPU kernels: what must not be in it, is not.

usage: static_check.py BUILD_TREE    (a CMake tree with the CPU objects; `fogzo bench --static`
reads the CUDA kernels)
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# A fused multiply-add or an approximate reciprocal changes bits between machines.
INEXACT_CPU = re.compile(r"\tv?(fn?m(add|sub)|rcp|rsqrt)\w*")
WIDE = re.compile(r"%[yz]mm\d+|\tv[a-z0-9]+ +.*%xmm")
HOT = re.compile(r"%[yz]mm")
MULTIPLIES = re.compile(r"\tv(pmaddubsw|pmaddwd|fmadd231ps|pdpbusd)\s")
STACK = re.compile(r"\(%rsp\b|-0x[0-9a-f]+\(%rbp\b")  # rbp may also hold an array's address
# The last operand is written, but for comparisons.
TO_STACK = re.compile(rf"\t(?!v?u?comis|cmp|test)\w+ .*,[-x0-9a-f]*({STACK.pattern})[^()]*\)$")
TORCH = re.compile(r"\btorch\b|\bATen\b|\bc10\b", re.IGNORECASE)


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
    """Stores to the stack in the innermost loops over vectors: registers ran out there.

    Constants that found no register are read from the stack, which costs what reading an array
    does. In a loop of a product, which keeps its sums in registers, a read is a finding too.
    """
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
            sums = any(MULTIPLIES.search(inside) for inside in loop)
            wrong = STACK if sums else TO_STACK
            found += [inside.strip() for inside in loop if wrong.search(inside)]
    return found


def shared_functions(symbols: str) -> list[str]:
    """Weak functions (nm type W or u) of an object compiled for more than the base machine."""
    return [line for line in symbols.splitlines() if re.search(r"\s[Wu]\s", line)]


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
        if any(name in path.name for name in ("avx2", "fma", "vnni")):
            found[f"{path.stem}: no spills in its loops"] = spilled_loops(code)
            found[f"{path.stem}: nothing the linker may share"] = shared_functions(run("nm", path))
        else:
            found[f"{path.stem}: runs on the base machine"] = leaked_avx(code)
    return found


def main() -> int:
    found = check_objects(Path(sys.argv[1]))
    sources = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    found["csrc: free of torch"] = mentions_torch(sources)
    for name, lines in found.items():
        print(f"{'FAIL' if lines else 'ok  '} {name}")
        for line in lines[:5]:
            print(f"       {line}")
    failed = sum(bool(lines) for lines in found.values())
    print(f"{len(found) - failed} of {len(found)} static checks passed")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
