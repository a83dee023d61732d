"""DESIGN section 6: which room may import what, read from the source, so that it stays true."""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path

import pytest

from fogzo_kernels import _dispatch

ROOT = Path(__file__).resolve().parents[1]
KERNELS, FOGZO = ROOT / "fogzo_kernels", ROOT / "python/fogzo"
COMMAND = ROOT / "python/fogzo_command/__init__.py"
STEMS = sorted(set(_dispatch.OPS.values()))
FILES = sorted(
    [*KERNELS.rglob("*.py"), *FOGZO.rglob("*.py"), *(ROOT / "bench").rglob("*.py"), COMMAND]
)
BACKEND_NAMES = ("reference", "cpu", "triton", "cuda")


def package_of(path: Path) -> list[str]:
    base = KERNELS.parent if path.is_relative_to(KERNELS) else FOGZO.parent
    return list(path.relative_to(base).parts[:-1])


def imports_of(source: str, package: list[str], top_only: bool = False) -> set[str]:
    """Absolute dotted names that a file imports, names inside a module included."""
    found = set()
    tree = ast.parse(source)
    for node in tree.body if top_only else ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*parts, *([node.module] if node.module else [])])
            found |= {f"{module}.{alias.name}" for alias in node.names}
    return found


def imports(path: Path, top_only: bool = False) -> set[str]:
    return imports_of(path.read_text(), package_of(path), top_only)


def outside(found: set[str], *allowed: str) -> list[str]:
    """Imports that are neither the standard library nor below one of the allowed names."""
    return sorted(
        name
        for name in found
        if name.partition(".")[0] not in sys.stdlib_module_names
        and not any(name == a or name.startswith(f"{a}.") for a in allowed)
    )


def touches(found: set[str], *names: str) -> list[str]:
    return sorted(f for f in found if any(f == n or f.startswith(f"{n}.") for n in names))


def test_the_reader_sees_every_form_of_import():
    source = (
        "import torch.nn\nfrom .. import _check, _array\nfrom .._reference.grid import code\n"
        "def f():\n    from triton import language as tl\n"
    )
    assert imports_of(source, ["fogzo_kernels", "noise"]) == {
        "torch.nn",
        "fogzo_kernels._check",
        "fogzo_kernels._array",
        "fogzo_kernels._reference.grid.code",
        "triton.language",
    }
    assert outside({"os.path", "torch.nn", "torchvision"}, "torch") == ["torchvision"]


@pytest.mark.parametrize("stem", STEMS)
def test_reference_touches_torch_and_the_shared_reference(stem):
    shared = ("_reference", "_check", "_types", "_surrogate", "_tables")
    found = imports(KERNELS / stem / "reference.py")
    assert outside(found, "torch", *(f"fogzo_kernels.{name}" for name in shared)) == []


def test_shared_reference_touches_nothing_else():
    shared = ("_reference", "_types", "_surrogate", "_scale", "_tables")
    for path in (KERNELS / "_reference").glob("*.py"):
        assert outside(imports(path), "torch", *(f"fogzo_kernels.{n}" for n in shared)) == []


@pytest.mark.parametrize("stem", STEMS)
def test_public_operations_touch_checks_and_dispatch(stem):
    """No torch, no NumPy, no backend by name: arithmetic and autograd have no way in."""
    shared = ("_check", "_outputs", "_plans", "_dispatch", "_array", "_surrogate", "_types")
    names = [*(f"fogzo_kernels.{name}" for name in shared), f"fogzo_kernels.{stem}.plan"]
    for name in ("__init__.py", "plan.py"):
        path = KERNELS / stem / name
        if path.exists():
            assert outside(imports(path), *names) == []


@pytest.mark.parametrize("stem", STEMS)
def test_native_touches_pointers_and_sizes(stem):
    paths = sorted((KERNELS / stem).glob("native*.py"))
    if not paths:
        pytest.skip(f"{stem} has no native kernel")
    shared = (
        "_native", "_array", "_convert", "_check", "_surrogate", "_scale", "_types", "_tables",
        "_ahead",
    )  # fmt: skip
    names = [f"fogzo_kernels.{name}" for name in shared]
    names += [f"fogzo_kernels.{stem}.{name}" for name in ("native_flips", "native_plans")]
    for path in paths:
        assert outside(imports(path, top_only=True), *names) == []
        assert touches(imports(path), "numpy", "triton", "torch.nn", "torch.autograd") == []


@pytest.mark.parametrize("stem", STEMS)
def test_triton_touches_triton_and_its_own_room(stem):
    path = KERNELS / stem / "triton_kernel.py"
    if not path.exists():
        pytest.skip(f"{stem} has no triton kernel")
    others = [f"fogzo_kernels.{other}" for other in STEMS if other != stem]
    assert touches(imports(path), "torch.nn", *others) == []
    assert "autotune" not in path.read_text()


def test_import_needs_no_torch_numpy_or_native_module():
    """At the top level of everything `import fogzo_kernels` reads."""
    eager = [*KERNELS.glob("*.py"), *(KERNELS / stem / "__init__.py" for stem in STEMS)]
    for path in eager:
        assert outside(imports(path, top_only=True), "fogzo_kernels") == [], path


def test_kernels_know_nothing_of_fogzo():
    for path in KERNELS.rglob("*.py"):
        assert touches(imports(path), "fogzo", "fogzo_bench") == [], path


def test_the_script_starts_without_torch_and_fogzo():
    assert outside(imports(COMMAND, top_only=True), "fogzo_kernels") == []


def test_autograd_touches_public_operations_and_torch():
    for path in (FOGZO / "autograd").rglob("*.py"):
        found = imports(path)
        assert outside(found, "torch", "fogzo_kernels", "fogzo.autograd") == [], path
        assert touches(found, "fogzo_kernels._native", "fogzo_kernels._cpu", "triton") == [], path
        assert [f for f in found if "reference" in f] == [], path


@pytest.mark.parametrize("room", ["layers", "estimators", "monitoring"])
def test_layers_estimators_and_monitoring_name_no_backend(room):
    for path in (FOGZO / room).rglob("*.py"):
        found = imports(path)
        assert outside(found, "torch", "fogzo_kernels", "fogzo") == [], path
        hidden = (f"fogzo_kernels.{name}" for name in ("_native", "_cpu", "_cuda", "_dispatch"))
        assert touches(found, *hidden) == [], path
        strings = {
            node.value for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.Constant) and isinstance(node.value, str)
        }  # fmt: skip
        assert not strings & {"reference", "triton"}, path


def test_estimators_know_nothing_of_what_watches_them():
    for path in [*(FOGZO / "layers").rglob("*.py"), *(FOGZO / "estimators").rglob("*.py")]:
        assert touches(imports(path), "fogzo.monitoring") == [], path


def test_nothing_imports_recipes_integrations_or_the_command():
    may = (FOGZO / "recipes", FOGZO / "integrations", FOGZO / "cli.py", FOGZO / "_info.py", COMMAND)
    rooms = ("fogzo.recipes", "fogzo.integrations", "fogzo.cli")
    for path in FILES:
        if any(path == m or path.is_relative_to(m) for m in may) or path.is_relative_to(
            ROOT / "bench"
        ):
            continue
        assert touches(imports(path), *rooms) == [], path


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_exception_is_swallowed_wholesale(path):
    """`except Exception` and wider only where the block ends by raising on."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.ExceptHandler):
            continue
        caught = ast.unparse(node.type) if node.type is not None else "everything"
        if re.search(r"\b(Exception|BaseException|everything)\b", caught):
            assert isinstance(node.body[-1], ast.Raise), f"line {node.lineno} catches {caught}"


def test_one_operation_one_stem():
    """A public name, its room and its test share a stem, `_many` and `_backward` included."""
    folders = {path.parent.name for path in KERNELS.glob("*/reference.py")}
    assert folders == set(STEMS)
    relatives = {"dequantize": "quantize", "unpack": "pack"}
    for op, stem in _dispatch.OPS.items():
        base = re.sub(r"_(many|backward)$", "", op)
        assert relatives.get(base, base) == stem
    for stem in STEMS:
        assert (ROOT / f"tests/test_{stem}.py").exists(), stem


@pytest.mark.parametrize("stem", STEMS)
def test_a_native_operation_has_its_source_by_the_same_stem(stem):
    if not (KERNELS / stem / "native.py").exists():
        pytest.skip(f"{stem} has no native kernel")
    text = (KERNELS / stem / "native.py").read_text()
    for backend, suffixes in (("cpu", ("cpp",)), ("cuda", ("cu", "cuh"))):
        if re.search(rf"^def {stem}_{backend}\(", text, re.MULTILINE):
            for suffix in suffixes:
                assert (ROOT / f"csrc/{backend}/{stem}.{suffix}").exists()


def test_csrc_knows_no_torch_and_its_headers_no_python():
    for path in (ROOT / "csrc").rglob("*"):
        if not path.is_file():
            continue
        text = path.read_text()
        assert not re.search(r"\b(torch|ATen|c10)/", text), path
        if path.name.startswith("bind"):
            continue
        assert not re.search(r"#include\s*[<\"](Python\.h|pybind11)", text), path
        if path.is_relative_to(ROOT / "csrc/include"):
            code = re.sub(r"//[^\n]*", "", text)
            assert not re.search(r"\b(malloc|new|throw|std::vector)\b\s*[(<\w]", code), path
