"""Builds the two optional native modules with CMake and ninja; pyproject.toml holds the rest."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

ROOT = Path(__file__).resolve().parent


def tool(name: str) -> str | None:
    """Beside the interpreter first: an isolated build's own CMake is newer than the system's."""
    return shutil.which(name, path=sysconfig.get_path("scripts")) or shutil.which(name)


class CMakeBuild(build_ext):
    """One CMake run in a fixed tree serves both modules, so that nothing is built twice."""

    def run(self) -> None:
        cuda = os.environ.get("FOGZO_CUDA", "auto")
        if cuda not in ("auto", "on", "off"):
            raise SystemExit(f"setup: FOGZO_CUDA is {cuda!r}, expected auto, on or off")
        tree = ROOT / "build" / f"{sysconfig.get_config_var('SOABI')}-cuda_{cuda}"
        self.out = tree / "out"
        shutil.rmtree(self.out, ignore_errors=True)
        problem = self.missing() or self.compile(tree, cuda)
        if problem and cuda == "auto" and self.missing() is None:
            print(f"fogzo-kernels: once more without CUDA: {problem}", file=sys.stderr)
            problem = self.compile(tree, "off")
        if problem and cuda == "on":
            raise SystemExit(f"setup: FOGZO_CUDA=on, but {problem}")
        if problem:
            print(f"\nfogzo-kernels: building without native modules: {problem}\n", file=sys.stderr)
        for extension in self.extensions:  # else a module of a build with other settings stays
            stale = Path(self.get_ext_filename(self.get_ext_fullname(extension.name)))
            for folder in (Path(self.build_lib), *([ROOT] if self.inplace else [])):
                (folder / stale).unlink(missing_ok=True)
        super().run()

    def missing(self) -> str | None:
        compiler = os.environ.get("CXX", "").split() or ["g++"]
        if not any(shutil.which(name) for name in (compiler[0], "c++", "clang++")):
            return "no C++ compiler (Debian: apt-get install -y g++)"
        if not (Path(sysconfig.get_path("include")) / "Python.h").exists():
            return "no Python.h (Debian: apt-get install -y python3-dev)"
        names = [name for name in ("cmake", "ninja") if tool(name) is None]
        return f"no {' and no '.join(names)} (pip install cmake ninja)" if names else None

    def compile(self, tree: Path, cuda: str) -> str | None:
        import pybind11

        cmake = str(tool("cmake"))
        configure = [cmake, "-S", str(ROOT), "-B", str(tree), "-G", "Ninja"]
        configure += [
            f"-DCMAKE_LIBRARY_OUTPUT_DIRECTORY={self.out}",
            f"-DCMAKE_MAKE_PROGRAM={tool('ninja')}",
            f"-Dpybind11_DIR={pybind11.get_cmake_dir()}",
            f"-DPython_EXECUTABLE={sys.executable}",
            f"-DFOGZO_CUDA={cuda}",
            "-DFOGZO_MODULES=ON",
            "-DFOGZO_LIBRARY=OFF",
        ]
        configure += shlex.split(os.environ.get("CMAKE_ARGS", ""))
        for command in (configure, [cmake, "--build", str(tree)]):
            if subprocess.run(command, stdout=sys.stderr).returncode:
                return f"`{shlex.join(command)}` failed; its output is above"
        return None

    def build_extension(self, ext: Extension) -> None:
        target = Path(self.get_ext_fullpath(ext.name))
        built = self.out / target.name
        if built.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(built, target)


NAMES = ("fogzo_kernels._cpu", "fogzo_kernels._cuda")
MODULES = [Extension(name, sources=[], optional=True) for name in NAMES]

setup(ext_modules=MODULES, cmdclass={"build_ext": CMakeBuild})
