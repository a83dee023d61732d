"""The launch table and the list of kernels: complete, and each names the other's entries."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from fogzo_kernels import _launch

ROOT = Path(__file__).resolve().parents[2]
KERNELS = _launch.kernels()


def jitted(path: Path) -> set[str]:
    """Functions under triton.jit that are kernels, not device functions: named *_kernel."""
    found = set()
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            decorators = " ".join(ast.unparse(d) for d in node.decorator_list)
            if "triton.jit" in decorators and node.name.endswith("_kernel"):
                found.add(node.name)
    return found


def test_every_kernel_declares_itself():
    """By the name of its function, once for each row of the table."""
    written = set()
    package = ROOT / "fogzo_kernels"
    for path in (*package.glob("*/triton_*.py"), *package.glob("_triton/*.py")):
        written |= jitted(path)
    assert {kernel.function.__name__ for kernel in KERNELS} == written
    assert sorted(kernel.name for kernel in KERNELS) == sorted(_launch.TABLE)


@pytest.mark.parametrize("kernel", KERNELS, ids=lambda kernel: kernel.name)
def test_cases_name_every_argument_once(kernel):
    assert kernel.cases
    for arch in (_launch.INTERPRETER, *_launch.ARCHITECTURES):
        blocks = _launch.pick(kernel.name, arch).blocks
        for case in kernel.cases:
            named = [*case.types, *case.constexprs, *blocks]
            assert sorted(named) == sorted(kernel.function.arg_names), case.name


def test_an_architecture_without_a_row_takes_an_older_one():
    rows = _launch.TABLE["noise"]
    assert _launch.pick("noise", 86) is rows[80]
    assert _launch.pick("noise", 121) is rows[80]
    assert _launch.pick("noise", 75) is rows[80]
    assert _launch.pick("noise", _launch.INTERPRETER) is rows[_launch.INTERPRETER]


@pytest.mark.parametrize(
    ("one", "other"),
    [("count_flips", "find_flips"), ("perturb_quantize", "perturb_quantize.tanh")],
)
def test_kernels_that_share_a_table_of_tensors_share_their_blocks(one, other):
    for arch in (_launch.INTERPRETER, *_launch.ARCHITECTURES):
        assert _launch.pick(one, arch).blocks == _launch.pick(other, arch).blocks


def test_the_table_prints_a_line_for_each_row(capsys):
    _launch.main()
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 1 + sum(len(rows) for rows in _launch.TABLE.values())
    assert any("noise" in line and "sm_90" in line and "TILES=" in line for line in lines)
