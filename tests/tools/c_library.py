"""Build, install and use the C library as a C or C++ programmer would.

The plain commands first, then programs in C and C++ against the installed tree alone: by compiler
options, by pkg-config, by find_package, shared and static. Where a tree with CUDA kernels was built
(`fogzo bench --static` does) its library is installed and called too.

usage: c_library.py    (everything lies in build/c-library)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path

import fogzo_kernels as fk
from fogzo_kernels import selftest

ROOT = Path(__file__).resolve().parents[2]
WORK = ROOT / "build/c-library"
C = ROOT / "examples/c/selftest.c"
CPP = ROOT / "examples/cpp/probe_layer.cpp"
STRICT = ("-Wall", "-Wextra", "-pedantic", "-Werror")
DOCUMENT = ROOT / "docs/c.md"
CUDA = """
#include <fogzo/fogzo.h>
#include <stdio.h>
int main(void) {
    puts(fogzo_status_text(fogzo_cuda_noise(NULL, NULL, 2, 3, 0, 3, FOGZO_IDENTITY,
                                            FOGZO_PUBLISHED, 0, 0, 0, 0, NULL)));
    return fogzo_cuda_device_count() < 0;
}
"""


def run(*command: object, **environment: str) -> str:
    """What a command printed; one that fails ends the check."""
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("FOGZO", "CMAKE"))}
    clean["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{clean['PATH']}"  # its cmake first
    words = [str(word) for word in command]
    done = subprocess.run(
        words, cwd=WORK, env=clean | environment, capture_output=True, text=True, check=False
    )
    if done.returncode:
        said = done.stdout[-3000:] + done.stderr[-3000:]
        raise SystemExit(f"c-library: {' '.join(words)}\n{said}")
    return done.stdout


def expect(what: str, got: object, expected: object) -> None:
    if got != expected:
        raise SystemExit(f"c-library: {what}: got {got!r}, expected {expected!r}")
    print(f"ok   {what}", flush=True)


def install(name: str, tree: Path, *options: str) -> Path:
    """Configure, build and install; the prefix."""
    prefix = WORK / name
    run("cmake", "-S", ROOT, "-B", tree, *options)
    run("cmake", "--build", tree, "--parallel", "2")
    run("cmake", "--install", tree, "--prefix", prefix)
    return prefix


def exported(library: Path) -> set[str]:
    lines = run("nm", "-D", "--defined-only", library).splitlines()
    return {line.split()[-1].partition("@")[0] for line in lines}


def declared(header: Path) -> set[str]:
    """The functions of a header that a program can link to."""
    text = re.sub(r"//.*", "", header.read_text())
    return set(re.findall(r"^(?:int|int64_t|const char\*) (fogzo_\w+)\(", text, re.M))


def probes() -> list[str]:
    """What examples/cpp/probe_layer.cpp prints, from the reference."""
    import torch

    def draw(rows: int, cols: int, tensor: int) -> torch.Tensor:
        u: torch.Tensor = fk.noise((rows, cols), "identity", seed=1, step=0, tensor=tensor, probe=0)
        return u

    grid = fk.Grid("mid-rise", 2)
    with fk.use_backend("reference"):
        x, w, scale = draw(64, 100, 0), draw(48, 100, 1), torch.full((48, 1), 0.5)
        grad = (x.double().sum(0) / (64 * 48)).float().expand(48, 100).contiguous()
        norm = fk.whitened_norm([grad], [scale], "clipped")
        named = {"seed": 7, "step": 0, "tensor": 1, "probes": 2, "gamma": 1e-3, "norm": norm}
        codes = fk.perturb_quantize(w, grad, scale, grid, "clipped", form="codes", **named)
        y = fk.probe_matmul(x, codes, scale, grid).double()
        changed = (codes != fk.quantize(w, scale, grid)).sum((1, 2)).tolist()
    d = ((y[0::2] - y[1::2]).mean((1, 2)) / 2).tolist()
    return [f"D {d[p]:+.3e} flips {changed[2 * p]} {changed[2 * p + 1]}" for p in (0, 1)]


def blocks(language: str) -> list[str]:
    """The fenced blocks of docs/c.md in that language."""
    return re.findall(rf"^```{language}\n(.*?)^```", DOCUMENT.read_text(), re.M | re.S)


def use(prefix: Path) -> None:
    """Everything that docs/c.md tells to compile, in a folder where P is the prefix."""
    (WORK / "P").symlink_to(prefix)
    for example in (C, CPP):
        shutil.copy(example, WORK)
        compiler = ("gcc", "-std=c99") if example == C else ("g++", "-std=c++11")
        run(*compiler, *STRICT, "-fsyntax-only", "-IP/include", example)
    lines = blocks("bash")[1].splitlines()
    hashed, *layer = "".join(run("bash", "-c", line) for line in lines).splitlines()
    expect("the C example prints the selftest's hash", hashed, HASH)
    expect("the C++ example's numbers are the reference's", layer, probes())
    (WORK / "block.c").write_text(blocks("c")[0])
    run("gcc", "-std=c99", *STRICT, "block.c", "-IP/include", "-LP/lib", "-lfogzo", "-o", "block")
    said = run("./block", LD_LIBRARY_PATH="P/lib").strip()
    expect("docs/c.md's program prints what it says", f"/* {said} */" in DOCUMENT.read_text(), True)


def use_packages(prefix: Path) -> None:
    """The C example through find_package, as docs/c.md has it, and through pkg-config."""
    source = WORK / f"user-{prefix.name}"
    source.mkdir()
    shutil.copy(C, source)
    (source / "CMakeLists.txt").write_text(blocks("cmake")[0])
    run("cmake", "-S", source, "-B", source / "build", f"-DCMAKE_PREFIX_PATH={prefix}")
    run("cmake", "--build", source / "build")
    expect(f"{prefix.name}: find_package", run(source / "build/selftest").strip(), HASH)
    if shutil.which("pkg-config") is None:
        print(f"     {prefix.name}: no pkg-config here: its file was not tried")
        return
    packages = {"PKG_CONFIG_PATH": str(prefix / "lib/pkgconfig")}
    flags = run("pkg-config", "--cflags", "--libs", "fogzo >= 0.1", **packages).split()
    run("gcc", C, *flags, "-lm", "-o", "by-pkg-config")
    said = run("./by-pkg-config", LD_LIBRARY_PATH=f"{prefix}/lib").strip()
    expect(f"{prefix.name}: pkg-config", said, HASH)


def use_cuda(prefix: Path) -> None:
    (WORK / "refused.c").write_text(CUDA)
    paths = ("-I", prefix / "include", "-L", prefix / "lib")
    run("gcc", "-std=c99", *STRICT, "refused.c", *paths, "-lfogzo_cuda", "-o", "refused")
    said = run("./refused", LD_LIBRARY_PATH=f"{prefix}/lib")
    expect("libfogzo_cuda refuses a null pointer", said.partition(" is null")[0], "pointer")
    expect(
        "libfogzo_cuda exports what cuda.h declares",
        exported(prefix / "lib/libfogzo_cuda.so"),
        declared(prefix / "include/fogzo/cuda.h"),
    )


HASH = selftest.digest("reference")


def main() -> int:
    begin = time.monotonic()
    tree = WORK / "tree"
    shutil.rmtree(WORK, ignore_errors=True)
    WORK.mkdir(parents=True)
    prefix = install("shared", tree, "-DFOGZO_CUDA=off")
    cache = (tree / "CMakeCache.txt").read_text()
    found = re.findall(r"(?i)^(?:_?python|pybind11)\w*", cache, re.M)
    expect("no Python and no pybind11 is looked for", found, [])
    library, headers = prefix / "lib/libfogzo.so", prefix / "include/fogzo"
    expect("libfogzo exports what cpu.h declares", exported(library), declared(headers / "cpu.h"))
    use(prefix)
    use_packages(prefix)
    use_packages(install("static", tree, "-DBUILD_SHARED_LIBS=OFF"))
    print(f"{time.monotonic() - begin:.0f} s", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
