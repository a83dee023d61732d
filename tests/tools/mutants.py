"""Plant each fault of tests/mutants/*.toml in a copy of the tree; the tests it names must fail.

A fault counts as caught only when its tests ran and failed; without it all of them must pass.
An entry holds what ``Mutant`` below does; its text must occur in its file exactly once.

usage: mutants.py [NAME ...]    (all faults, or those whose names contain a NAME)
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/mutants"
GOOD = WORK / "good"  # the native builds without a fault
STOP = threading.Event()
TOOLS = ("cpp", "static", "c-library", "emulator")  # besides pytest's node ids
INTERPRETED = "tests/triton_kernels/"  # tests that need a process of their own
EMULATED = "tests/cuda_kernels/"  # and these the CUDA kernels built for the host
BUILDS = ("build/cpp", "build/cuda_host")
PYTEST = (sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--no-header")
LIMIT_S = 300


@dataclass(frozen=True)
class Mutant:
    """One planted fault: `find` in `file` becomes `replace`, and `tests` must notice.

    tests: pytest's node ids, "cpp" (the C++ test binary), "static" (tests/tools/static_check.py),
    "c-library" (tests/tools/c_library.py), "emulator" (the tests of tests/cuda_on_host).
    """

    name: str
    file: str
    find: str
    replace: str
    tests: tuple[str, ...]
    needs: str = ""  # "avx2", "nvcc" or "triton": skipped where the machine has none

    @property
    def native(self) -> bool:
        rooms = ("csrc/", "tests/cuda_on_host/")
        return self.file.startswith(rooms) or self.file == "CMakeLists.txt"


def load() -> list[Mutant]:
    """The faults of all files, checked to be well formed and to apply to this tree."""
    mutants = []
    files = sorted((ROOT / "tests/mutants").glob("*.toml"))
    for entry in (e for path in files for e in tomllib.loads(path.read_text())["mutant"]):
        mutant = Mutant(**{**entry, "tests": tuple(entry["tests"])})
        count = (ROOT / mutant.file).read_text().count(mutant.find)
        if count != 1:
            raise SystemExit(
                f"mutants: {mutant.name}: find occurs {count} times in {mutant.file}, expected once"
            )
        if not mutant.tests or mutant.find == mutant.replace:
            raise SystemExit(f"mutants: {mutant.name}: expected tests and a changed text")
        mutants.append(mutant)
    names = [mutant.name for mutant in mutants]
    if len(set(names)) != len(names):
        raise SystemExit("mutants: two faults have one name")
    return mutants


def missing(needs: str) -> bool:
    if needs == "avx2":
        cpu = Path("/proc/cpuinfo")
        return not (cpu.exists() and "avx2" in cpu.read_text())
    if needs == "triton":
        return importlib.util.find_spec("triton") is None
    return needs == "nvcc" and shutil.which("nvcc") is None


def on_host(test: str) -> bool:
    """Whether a test needs the CUDA kernels built for the host."""
    return test == "emulator" or test.startswith(EMULATED)


def processes(tests: Iterable[str]) -> list[list[str]]:
    """Pytest's node ids among the tests, by the process they run in."""
    nodes = [test for test in tests if test not in TOOLS]
    parts: dict[str, list[str]] = {}
    for test in nodes:
        own = [prefix for prefix in (INTERPRETED, EMULATED) if test.startswith(prefix)]
        parts.setdefault("".join(own), []).append(test)
    return list(parts.values())


class Copy:
    """A copy of the tree in which faults are planted one after the other."""

    def __init__(self, name: str) -> None:
        self.tree = WORK / name
        self.site = WORK / f"{name}-site"

    def fill(self) -> None:
        """Tracked and new files, none that git ignores; an earlier run's build stays."""
        command = ["git", "ls-files", "-co", "--exclude-standard"]
        listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
        wanted = {name for name in listed.stdout.splitlines() if (ROOT / name).is_file()}
        for path in self.tree.rglob("*"):
            name = str(path.relative_to(self.tree))
            if path.is_file() and name not in wanted and not name.startswith("build/"):
                path.unlink()
        for name in wanted:
            source, target = ROOT / name, self.tree / name
            if not target.exists() or target.read_bytes() != source.read_bytes():
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source, target)
        self.site.mkdir(parents=True, exist_ok=True)
        if not (self.site / "fogzo_bench").is_symlink():
            (self.site / "fogzo_bench").symlink_to(self.tree / "bench")

    def run(self, *command: str, limit_s: int = LIMIT_S) -> tuple[int, str]:
        path = os.pathsep.join(str(part) for part in (self.tree, self.tree / "python", self.site))
        environment = {**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"}
        if command[-1].startswith(EMULATED):
            (built,) = (self.tree / "build/cuda_host/out").glob("_cuda*.so")
            environment["FOGZO_CUDA_ON_HOST"] = str(built)
        try:
            done = subprocess.run(
                command,
                cwd=self.tree,
                env=environment,
                capture_output=True,
                text=True,
                timeout=limit_s,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return 124, f"ran past {limit_s} s"
        return done.returncode, done.stdout + done.stderr

    def run_each(self, folder: str, pattern: str) -> tuple[int, str]:
        """Run the test programs of a folder up to the first that fails."""
        programs = sorted((self.tree / folder).glob(pattern))
        code, said = (0, "") if programs else (2, f"{folder} has no {pattern}")
        for program in programs:
            code, text = self.run(str(program))
            said += text
            if code:
                break
        return code, said

    def build(self, tests: tuple[str, ...]) -> tuple[int, str]:
        """Build what the tests need of the native code, incrementally."""
        if any(map(on_host, tests)):
            code, text = self.run(
                "tests/tools/cuda_host_build.sh", sys.executable, "build/cuda_host"
            )
            if code:
                return code, text
        targets = {"cpp": "fogzo_tests", "static": "fogzo_cpu", "c-library": "fogzo_cpu"}
        wanted = {targets.get(test, "_cpu") for test in tests if not on_host(test)}
        if not wanted:
            return 0, ""
        builder = "tests/tools/native_build.sh"
        code, text = self.run(builder, sys.executable, "build/cpp", "", *sorted(wanted))
        if code == 0 and "_cpu" in wanted:
            self.take(self.tree / "build/cpp/out")
        return code, text

    def take(self, folder: Path) -> None:
        """Put the native modules of a folder where Python finds them."""
        for module in folder.glob("*.so"):
            shutil.copy(module, self.tree / "fogzo_kernels" / module.name)

    def restore(self) -> None:
        """The build without a fault, dates and all, so that ninja rebuilds nothing for it."""
        for build in BUILDS:
            if (GOOD / build).exists():
                shutil.rmtree(self.tree / build)
                shutil.copytree(GOOD / build, self.tree / build)
        self.take(GOOD / "build/cpp/out")

    def fails(self, tests: tuple[str, ...]) -> tuple[bool, str]:
        """Whether the named tests ran and failed, and what they said."""
        said = ""
        for test in tests:
            if test not in TOOLS:
                continue
            tools = {"static": ("static_check.py", "build/cpp"), "c-library": ("c_library.py",)}
            if test == "cpp":
                code, text = self.run("build/cpp/fogzo_tests")
            elif test == "emulator":
                code, text = self.run_each("build/cuda_host", "*_test")
            else:
                script, *words = tools[test]
                code, text = self.run(sys.executable, f"tests/tools/{script}", *words)
            said += text
            if code == 1 and re.search("failed|FAIL|c-library: .*: got", text):
                return True, said
            if code:
                return False, f"{said}\n{test} ended with {code}"
        for nodes in processes(tests):
            code, text = self.run(*PYTEST, *nodes)
            said += text
            if code not in (0, 1):
                said += f"\npytest ended with {code}: not a failing test"
            if code:
                return code == 1, said
        return False, said

    def plant(self, mutant: Mutant) -> tuple[bool, str]:
        """Apply one fault, run its tests, take it back."""
        path = self.tree / mutant.file
        original, changed = path.read_text(), path.stat().st_mtime_ns
        path.write_text(original.replace(mutant.find, mutant.replace))
        try:
            if mutant.native:
                code, text = self.build(mutant.tests)
                if code:
                    return False, f"does not build:\n{text}"
            return self.fails(mutant.tests)
        finally:
            path.write_text(original)
            os.utime(path, ns=(changed, changed))
            if mutant.native:
                self.restore()

    def judge(self, mutants: list[Mutant]) -> int:
        """Plant every fault; how many were caught."""
        caught = 0
        for mutant in mutants:
            if STOP.is_set():
                break
            begin = time.monotonic()
            found, text = self.plant(mutant)
            caught += found
            word = "caught" if found else "MISSED"
            lines = [f"{word}  {mutant.name}  ({time.monotonic() - begin:.1f} s)"]
            if not found:
                lines += ["  " + line for line in text.strip().splitlines()[-12:]]
            print("\n".join(lines), flush=True)
        return caught


def prepare(mutants: list[Mutant]) -> tuple[Copy, Copy]:
    """Two copies, one for native faults and one for the rest, in which every named test passes."""
    native, plain = Copy("native"), Copy("plain")
    native.fill()
    plain.fill()
    tests = tuple(dict.fromkeys(test for mutant in mutants for test in mutant.tests))
    code, text = native.build(("cpp", "static", "module", *filter(on_host, tests)))
    if code:
        raise SystemExit(f"mutants: the tree does not build:\n{text}")
    shutil.rmtree(GOOD, ignore_errors=True)
    for build in BUILDS:
        if (native.tree / build).exists():
            shutil.copytree(native.tree / build, GOOD / build)
    plain.take(GOOD / "build/cpp/out")
    print(f"{len(tests)} tests must pass without a fault", flush=True)
    for test in TOOLS:
        failed, text = native.fails((test,)) if test in tests else (False, "")
        if failed or "ended with" in text:
            raise SystemExit(f"mutants: {test} fails without a fault:\n{text}")
    for nodes in processes(tests):
        tree = native if on_host(nodes[-1]) else plain
        code, text = tree.run(*PYTEST, *nodes, limit_s=LIMIT_S * (1 + len(nodes) // 20))
        if code:
            raise SystemExit(f"mutants: pytest ended with {code} without a fault:\n{text[-4000:]}")
    return native, plain


def main() -> int:
    chosen = sys.argv[1:]
    mutants = [m for m in load() if not chosen or any(name in m.name for name in chosen)]
    if not mutants:
        raise SystemExit(f"mutants: none is named like {' '.join(chosen)}")
    for mutant in [m for m in mutants if missing(m.needs)]:
        print(f"skipped {mutant.name}: this machine has no {mutant.needs}")
        mutants.remove(mutant)
    native, plain = prepare(mutants)
    with ThreadPoolExecutor(2) as pool:
        shares = [
            pool.submit(native.judge, [m for m in mutants if m.native]),
            pool.submit(plain.judge, [m for m in mutants if not m.native]),
        ]
        try:
            caught = sum(share.result() for share in shares)
        except KeyboardInterrupt:
            STOP.set()
            raise
    print(f"{caught} of {len(mutants)} planted faults caught")
    return 0 if caught == len(mutants) else 1


if __name__ == "__main__":
    sys.exit(main())
