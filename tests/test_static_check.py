"""Each static check finds the fault it is there for, and lets correct code through."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
spec = importlib.util.spec_from_file_location("static_check", ROOT / "tests/tools/static_check.py")
assert spec is not None
assert spec.loader is not None
static_check = importlib.util.module_from_spec(spec)
spec.loader.exec_module(static_check)


@pytest.mark.parametrize(
    "line",
    [
        "  1f:\tvfmadd231ps %ymm1,%ymm2,%ymm3",
        "  1f:\tvfnmadd132ss %xmm1,%xmm2,%xmm3",
        "  1f:\tvfmsub213ps %ymm1,%ymm2,%ymm3",
        "  1f:\trcpps %xmm0,%xmm1",
        "  1f:\tvrsqrtps %ymm0,%ymm1",
        "  1f:\trsqrtss %xmm0,%xmm1",
        "  1f:\tvrcp14ps %zmm0,%zmm1",
    ],
)
def test_inexact_cpu_instructions_are_found(line):
    assert static_check.inexact_cpu(f"x\n{line}\ny\n") == [line.strip()]


def test_exact_cpu_instructions_pass():
    code = "  1f:\tsqrtps %xmm0,%xmm1\n  2f:\tvdivps %ymm1,%ymm2,%ymm3\n  3f:\tmulss %xmm0,%xmm1\n"
    assert static_check.inexact_cpu(code) == []


@pytest.mark.parametrize(
    "line", ["  1f:\tvaddps %ymm1,%ymm2,%ymm3", "  1f:\tvmovups 0x8(%rax),%xmm1"]
)
def test_avx_in_portable_objects_is_found(line):
    assert static_check.leaked_avx(line) == [line.strip()]
    base = "  1f:\tmovups 0x8(%rax),%xmm1\n  2f:\tcvtdq2ps %xmm0,%xmm1"
    assert static_check.leaked_avx(base) == []


def test_shared_functions_are_found():
    assert static_check.shared_functions("0000 W _ZNSt6vectorIfE4sizeEv\n0000 T _Z1fv\n") == [
        "0000 W _ZNSt6vectorIfE4sizeEv"
    ]


def test_torch_in_csrc_is_found(tmp_path):
    source = tmp_path / "a.cpp"
    source.write_text("#include <torch/extension.h>\nint torchlight;\n")
    assert static_check.mentions_torch([source]) == [f"{source}: #include <torch/extension.h>"]
    files = [path for path in (ROOT / "csrc").rglob("*") if path.is_file()]
    assert files
    assert static_check.mentions_torch(files) == []


def spills(*loop):
    return static_check.spilled_loops(
        "".join(f"  1{i}:\t{line}\n" for i, line in enumerate((*loop, "jne    10 <f>")))
    )


STORE = "vmovdqa %ymm2,0x20(%rsp)"


def test_a_stack_access_in_a_multiplying_loop_is_found():
    product = "vpmaddubsw %ymm0,%ymm1,%ymm2"
    assert spills(product, STORE) == [f"11:\t{STORE}"]
    assert spills(product, "vmovdqa 0x20(%rsp),%ymm2") == ["11:\tvmovdqa 0x20(%rsp),%ymm2"]
    assert spills(product, STORE.replace("(%rsp)", "(%rdi)")) == []
    assert spills("jne    12 <f>", product, STORE) == []  # not innermost


@pytest.mark.parametrize(
    "store",
    [
        STORE,
        "vmovaps %ymm2,-0x40(%rbp)",
        "vextracti128 $0x1,%ymm2,(%rsp)",
        "vmovss %xmm2,0x8(%rsp,%rdx,4)",
        "subq   $0x20,-0x28(%rsp)",
        "mov    %rax,0x38(%rsp)",
    ],
)
def test_a_store_to_the_stack_in_any_loop_over_vectors_is_found(store):
    assert spills("vaddps %ymm0,%ymm1,%ymm2", store) == [f"11:\t{store}"]
    assert spills("addss  %xmm0,%xmm1", store) == ([f"11:\t{store}"] if "ymm" in store else [])


@pytest.mark.parametrize(
    "line",
    [
        "vmovdqa -0x18(%rsp),%ymm2",
        "vpxor  0x108(%rsp),%ymm7,%ymm7",
        "cmp    %rax,0x8(%rsp)",
        "vmovups %ymm0,0x20(%rbp,%rax,4)",
    ],
)
def test_constants_on_the_stack_and_other_arrays_pass(line):
    assert spills("vaddps %ymm0,%ymm1,%ymm2", line) == []
