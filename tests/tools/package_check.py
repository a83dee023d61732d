"""Build wheels as a user's pip would, of the sdist and without a compiler; use them without torch.

usage: package_check.py    (its virtual environments lie in build/package)
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import time
import tomllib
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/package"
LIMIT_S = 120
CUDA_LIMIT_S = 400  # the kernels of three GPU generations
INSIDE = (
    "fogzo/py.typed",
    "fogzo/cli.py",
    "fogzo/recipes/data/mnist/train-images-idx3-ubyte.gz",
    "fogzo_bench/peers.py",
    "fogzo_kernels/py.typed",
    "fogzo_kernels/_reference/philox.py",
)
ELSEWHERE = (".ci/", ".git")  # not in the sdist
USE = """
import fogzo_kernels as fk
print("backends:", ", ".join(fk.backends()) or "none: " + fk.why_not("cpu"))
try:
    import fogzo
except ImportError as error:
    print("import fogzo:", error)
else:
    raise SystemExit("import fogzo worked without torch")
"""


def sources() -> Path:
    """A copy of the tree as git sees it, so that no earlier build is met."""
    copy = WORK / "source"
    listed = subprocess.run(
        ["git", "ls-files", "-co", "--exclude-standard"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    for name in listed.stdout.splitlines():
        if (ROOT / name).is_file():
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, copy / name)
    return copy


def run(*command: str | Path, path: str | None = None) -> str:
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "FOGZO"))}
    if path is not None:
        environment["PATH"] = path
    done = subprocess.run(
        [str(word) for word in command],
        cwd=WORK,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"package: {command} failed:\n{done.stdout[-6000:]}{done.stderr[-6000:]}")
    return done.stdout + done.stderr


def sdist(source: Path) -> Path:
    """The source distribution, which has every file of the tree."""
    python = WORK / "venv-sdist/bin/python"
    run(sys.executable, "-m", "venv", python.parents[1])
    required = tomllib.loads((source / "pyproject.toml").read_text())["build-system"]["requires"]
    run(python, "-m", "pip", "--disable-pip-version-check", "install", "--quiet", *required)
    hook = (
        "import os, sys, setuptools.build_meta as b;"
        "os.chdir(sys.argv[1]); b.build_sdist(sys.argv[2])"
    )
    run(python, "-c", hook, source, WORK)
    (archive,) = WORK.glob("*.tar.gz")
    with tarfile.open(archive) as file:
        inside = {name.partition("/")[2] for name in file.getnames()}
    lacking = sorted(
        name
        for path in source.rglob("*")
        if path.is_file()
        and "egg-info" not in (name := str(path.relative_to(source)))
        and name not in inside
        and not name.startswith(ELSEWHERE)
    )
    if lacking:
        raise SystemExit(f"package: the sdist lacks {', '.join(lacking)}")
    return archive


def check(name: str, source: Path, *, native: bool) -> None:
    """Make a wheel, look into it, install it alone and import it."""
    wheels = WORK / name
    python = WORK / f"venv-{name}/bin/python"
    run(sys.executable, "-m", "venv", python.parents[1])
    begin = time.monotonic()
    pip = (python, "-m", "pip", "--disable-pip-version-check")
    path = None if native else str(python.parent)
    log = run(*pip, "wheel", "-v", "--no-deps", "-w", wheels, source, path=path)
    wheel = next(wheels.glob("*.whl"))
    run(*pip, "install", "--quiet", wheel)
    seconds = time.monotonic() - begin
    inside = zipfile.ZipFile(wheel).namelist()
    lacking = [file for file in INSIDE if file not in inside]
    if lacking:
        raise SystemExit(f"package: the wheel lacks {', '.join(lacking)}")
    if any(file.startswith("fogzo_kernels/_cpu") for file in inside) != native:
        raise SystemExit(f"package: _cpu in the wheel: {not native}, expected {native}")
    if not native and "no C++ compiler" not in log:
        raise SystemExit(f"package: expected a word on the missing compiler:\n{log[-3000:]}")
    with_cuda = any(file.startswith("fogzo_kernels/_cuda") for file in inside)
    limit = CUDA_LIMIT_S if with_cuda else LIMIT_S
    if seconds > limit:
        raise SystemExit(f"package: installing took {seconds:.0f} s, expected at most {limit}")
    said = run(python, "-c", USE)
    told = run(python.with_name("fogzo"), "info")
    if "fogzo: not usable: fogzo needs torch >= 2.11" not in told:
        raise SystemExit(f"package: `fogzo info` without torch printed:\n{told}")
    size = wheel.stat().st_size / 1e6
    print(f"{name}: {seconds:.0f} s, {size:.1f} MB\n{said}", end="", flush=True)


def main() -> int:
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    source = sources()
    has_compiler = any(shutil.which(name) for name in ("g++", "c++", "clang++"))
    check("sdist", sdist(source), native=has_compiler)
    check("no-compiler", source, native=False)
    return 0


if __name__ == "__main__":
    sys.exit(main())
