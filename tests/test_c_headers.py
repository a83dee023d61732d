"""The C headers: they compile alone, and every launcher is documented and has one shape."""

from __future__ import annotations

import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
INCLUDE = ROOT / "csrc/include"
HEADERS = ("fogzo", "cpu", "cuda", "status")
LAST = {"cpu": "int threads", "cuda": "void* stream"}
DECLARATION = re.compile(r"^(int|int64_t|const char\*) (fogzo_(cpu|cuda)_\w+)\(([^)]*)\);", re.M)
# They ask; nothing is launched.
QUERIES = re.compile(r"_workspace$|_corrected$|_isa$|_device_count$")


def declarations(name: str) -> list[tuple[str, list[str], str]]:
    """(function, arguments, the comment above it or above the functions it follows)."""
    text = (INCLUDE / f"fogzo/{name}.h").read_text()
    found = []
    for match in DECLARATION.finditer(text):
        paragraph = text[: match.start()].rpartition("\n\n")[2]
        comment = " ".join(re.findall(r"^// ?(.*)", paragraph, re.M))
        found.append((match[2], re.split(r",\s*", match[4]), comment))
    return found


LAUNCHERS = [
    (name, arguments, comment)
    for room in LAST
    for name, arguments, comment in declarations(room)
    if not QUERIES.search(name)
]


@pytest.mark.parametrize("header", HEADERS)
@pytest.mark.parametrize(
    "compiler",
    [("gcc", "-std=c99"), ("g++", "-std=c++11", "-xc++"), ("g++", "-std=c++20", "-xc++")],
)
def test_each_header_compiles_alone(tmp_path, header, compiler):
    if shutil.which(compiler[0]) is None:
        pytest.skip(f"no {compiler[0]}")
    source = tmp_path / "one.c"
    source.write_text(
        f"#include <fogzo/{header}.h>\nint unit(void);\nint unit(void) {{ return 0; }}\n"
    )
    strict = ("-Wall", "-Wextra", "-pedantic", "-Werror", "-fsyntax-only")
    command = [*compiler, *strict, f"-I{INCLUDE}", str(source)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_there_are_launchers():
    assert len(LAUNCHERS) >= 17
    assert any(name.startswith("fogzo_cuda_") for name, _, _ in LAUNCHERS)


@pytest.mark.parametrize(
    ("name", "arguments", "comment"), LAUNCHERS, ids=lambda value: str(value)[:40]
)
def test_every_launcher_is_documented_and_ends_alike(name, arguments, comment):
    if name in ("fogzo_cpu_set_isa", "fogzo_cpu_probe_matmul_flips_corrected"):
        return  # a choice and a question: nothing is launched
    assert re.search(r"\[[^\]]+\]|Nothing is written|fogzo_cpu_", comment), f"{name}: no shape"
    assert arguments[-1] == LAST[name.split("_")[1]]


@pytest.mark.parametrize("room", LAST)
def test_sources_define_what_the_header_declares(room):
    text = "\n".join(path.read_text() for path in (ROOT / f"csrc/{room}").glob("*.c*"))
    defined = set(re.findall(r'^extern "C" [\w* ]+?(fogzo_\w+)\(', text, re.M))
    assert defined == {name for name, _, _ in declarations(room)}


def test_the_version_is_one():
    text = (INCLUDE / "fogzo/fogzo.h").read_text()
    numbers = dict(re.findall(r"define FOGZO_VERSION_(MAJOR|MINOR|PATCH) (\d+)", text))
    version = ".".join(numbers[part] for part in ("MAJOR", "MINOR", "PATCH"))
    assert f'#define FOGZO_VERSION "{version}"' in text
    assert tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"] == version


@pytest.mark.parametrize("example", ["c/selftest.c", "cpp/probe_layer.cpp"])
def test_the_examples_are_short(example):
    """At most 40 lines each; `make c-library` compiles and runs them."""
    assert len((ROOT / "examples" / example).read_text().splitlines()) <= 40
