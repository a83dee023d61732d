"""fogzo bench --static: what it reads out of PTX and machine code, and what it must find."""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest
from fogzo_bench import _static_read as read
from fogzo_bench import static

ROOT = Path(__file__).resolve().parents[1]
needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="triton is not installed"
)
HEAD = (
    ".param .u64 .ptr .global .align 1 k_param_0,\n.param .u64 .ptr .global .align 1 k_param_1,\n"
    ".param .u32 k_param_2\nld.param.b64 %rd1, [k_param_0];\nld.param.b64 %rd2, [k_param_1];\n"
    "ld.param.b32 %r1, [k_param_2];\nmad.wide.u32 %rd3, %r1, 4, %rd1;\nadd.s64 %rd4, %rd3, 16;\n"
)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("@%p1 ld.global.v4.b32 { %r2, %r3, %r4, %r5 }, [ %rd4 + 0 ];", (0, 16)),
        ("ld.global.b8 { %rs1 }, [ %rd2 + 0 ];", (1, 1)),
        ("@!%p2 ld.global.L1::evict_last.v2.b64 { %rd8, %rd9 }, [ %rd4 + 32 ];", (0, 16)),
        ("cp.async.cg.shared.global [ %r7 + 0 ], [ %rd4 + 0 ], 0x10, %r9;", (0, 16)),
        ("cp.async.ca.shared.global [ %r7 + 0 ], [ %rd4 + 0 ], 0x4;", (0, 4)),
    ],
)
def test_a_load_is_told_by_its_parameter_and_width(line, expected):
    assert read.loads(HEAD + line) == [expected]


def test_a_loaded_address_is_no_parameter():
    more = "ld.global.b64 { %rd7 }, [ %rd2 + 8 ];\nadd.s64 %rd8, %rd7, 4;\n"
    assert read.loads(HEAD + more + "ld.global.b32 { %r5 }, [ %rd8 + 0 ];") == [
        (1, 8),
        (read.LOADED, 4),
    ]


def test_an_address_of_two_parameters_is_refused():
    more = "selp.b64 %rd7, %rd1, %rd2, %p1;\nld.global.b32 { %r5 }, [ %rd7 + 0 ];"
    with pytest.raises(ValueError, match="the address %rd7 comes from 2 parameters"):
        read.loads(HEAD + more)


def test_narrow_loads_are_found_where_they_count():
    wide = "ld.global.v4.b32 { %r2, %r3, %r4, %r5 }, [ %rd4 + 0 ];\n"
    scalar = "ld.global.b32 { %r2 }, [ %rd4 + 0 ];\n"
    assert read.narrow_loads(HEAD + wide, {0: "x"}) == []
    assert read.narrow_loads(HEAD + wide + scalar * 2, {0: "x"}) == ["x: 2 loads of 4 bytes"]
    assert read.narrow_loads(HEAD + scalar, {1: "y"}) == []
    table = "ld.global.b64 { %rd7 }, [ %rd2 + 8 ];\n"
    via = scalar.replace("%rd4", "%rd7")
    assert read.narrow_loads(HEAD + table + via + wide.replace("%rd4", "%rd7"), {}) == []
    assert read.narrow_loads(HEAD + table + via * 4, {}) == [
        "tensors of the table: 16 bytes by narrow loads, 0 by wide"
    ]


@pytest.mark.parametrize(
    "line",
    [
        "div.full.f32 %r1, %r2, %r3;",
        "sqrt.approx.ftz.f32 %r1, %r2;",
        "cvt.rmi.f32.f32 %r1, %r2;",
        "fma.rn.f32 %r1, %r2, %r3, %r4;",
        "add.f32 %r1, %r2, %r3;",
        "mul.f32 %r1, %r2, %r3;",
    ],
)
def test_inexact_ptx_is_found(line):
    assert read.inexact(f"\t{line}") == [line.split()[0]]


def test_exact_ptx_passes():
    assert read.inexact("add.rn.f32 %r1;\ndiv.rn.f32 %r1;\nmul.lo.s64 %rd1;\n// fma.rn.f32\n") == []


SASS = """
        /*0000*/                   LDC R1, c[0x0][0x28] ;              /* 0x0 */
        /*0010*/              @!P0 BRA 0x60 ;                          /* 0x0 */
        /*0020*/                   HFMA2.MMA R2, -RZ, RZ, 0, 0 ;       /* 0x0 */
        /*0030*/                   IMMA.16832.S8.S8.SAT R4, R2.ROW ;   /* 0x0 */
        /*0040*/                   STL [R1], R3 ;                      /* 0x0 */
        /*0050*/               @P1 BRA 0x20 ;                          /* 0x0 */
        /*0060*/                   EXIT ;                              /* 0x0 */
        /*0070*/                   BRA 0x70 ;                          /* 0x0 */
"""
USAGE = "Function k:\n  REG:40 STACK:8 SHARED:0 LOCAL:0 CONSTANT[0]:400"


def test_machine_code_is_counted():
    code = read.machine_code(USAGE, SASS)
    assert (code.registers, code.stack, code.loop, code.rest) == (40, 8, 4, 4)
    assert code.counts["IMMA"] == 1
    with pytest.raises(ValueError, match="cuobjdump printed no kernel"):
        read.machine_code("", "")


def test_findings_name_what_is_wrong():
    code = read.machine_code(USAGE, SASS)
    same = {"exact": False, "wide": {}}
    found = read.findings("", code, 200_000, 80, tensor="half", **same)
    assert found == [
        "8 bytes of stack and local memory",
        "spills: 1 STL",
        f"200000 bytes of shared memory, at most {163 * 1024}",
        "no HMMA; tensor-core instructions: IMMA",
    ]
    clean = read.Code({"IGMMA": 2, "HFMA2": 1}, 0, 3, 32, 0)
    assert read.findings("", clean, 0, 90, tensor="int8", **same) == []
    assert read.findings("", clean, 0, 90, tensor="half", **same) != []
    assert read.findings("add.f32", clean, 0, 90, exact=True, tensor="", wide=None) == [
        "not exact: add.f32"
    ]


def test_occupancy_by_registers_threads_and_shared_memory():
    assert static.occupancy(32, 0, 4, 90) == 1.0
    assert static.occupancy(255, 0, 8, 90) == 0.125
    assert static.occupancy(32, 100 * 1024, 4, 90) == 2 * 4 / 64
    assert static.occupancy(32, 100 * 1024, 4, 80) == 1 * 4 / 64


def test_architectures_are_checked():
    assert static.architectures("90,80") == (90, 80)
    with pytest.raises(ValueError, match="got '70', expected numbers of 80, 90, 100, by commas"):
        static.architectures("70")


def bench(*words):
    """fogzo bench --static in a process of its own: exit code and what it printed."""
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "fogzo.cli", "bench", "--static", *words]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_triton
@pytest.mark.parametrize("op", ["hadamard", "quantize_activation", "noise"])
def test_kernels_have_no_finding(op):
    code, text = bench("--arch", "90", op)
    assert code == 0, text
    assert f"sm_90 {op}" in text
    assert "H200 at least" in text


@needs_triton
def test_every_kernel_of_the_table_is_read(monkeypatch, capsys):
    from fogzo_bench import _static_cuda, static

    from fogzo_kernels import _launch

    read = []

    def of_triton(kernel, case, arch):
        read.append((kernel.name, case.name))
        code = static.Code({}, 0, 0, 0, 0)
        return static.Read(kernel.name, arch, code, 0, 4, [], [])

    monkeypatch.setattr(static, "of_triton", of_triton)
    monkeypatch.setattr(_static_cuda, "absent", lambda: "left out")
    assert static.run((90,), []) == 0
    assert read == [(k.name, case.name) for k in _launch.kernels() for case in k.cases]
    assert {name for name, _ in read} == set(_launch.TABLE)
    assert f"{len(read)} of {len(read)} compiled kernels" in capsys.readouterr().err


@needs_triton
def test_every_kernel_says_what_it_has_to_do():
    from fogzo_bench._static_work import SMALL, work

    from fogzo_kernels import _launch

    for kernel in _launch.kernels():
        for case in kernel.cases:
            jobs = work(kernel, case, 90)
            assert bool(jobs) == (kernel.name not in SMALL)
            assert all(job.bytes > 0 and job.programs > 0 and job.steps > 0 for job in jobs)


PLANTED = """
import triton, triton.language as tl
from fogzo_kernels._launch import Case, Kernel

@triton.jit
def divide(x, y, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    a = tl.load(x + i)
    tl.store(y + i, {expression})

case = Case("planted", {{"x": "*fp32", "y": "*fp32"}}, {{"BLOCK": {block}}}, ("x", "y"))
KERNEL = Kernel("noise", divide, (case,))
"""


@needs_triton
@pytest.mark.parametrize(
    ("expression", "block", "finding"),
    [
        ("tl.div_rn(a, a + 3.0)", 1024, None),
        ("a / 3.0 + a / (a + 2.0)", 1024, "not exact: div.full.f32"),
        ("tl.floor(a)", 1024, "not exact: cvt.rmi"),
        ("tl.sqrt(a)", 1024, "not exact: sqrt.approx"),
        ("a + tl.load(x + (i ^ 1))", 1024, "x: 8 loads of 4 bytes"),
        ("tl.div_rn(a, tl.full([BLOCK], 3.0, tl.float32) + tl.sum(a))", 65536, "spills: "),
    ],
)
def test_planted_faults_are_found(tmp_path, monkeypatch, expression, block, finding):
    from dataclasses import replace

    from fogzo_bench import _static_compile

    from fogzo_kernels import _launch

    path = tmp_path / "planted.py"
    path.write_text(PLANTED.format(expression=expression, block=block))
    spec = importlib.util.spec_from_file_location("planted", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    row = replace(_launch.TABLE["noise"][90], blocks={})
    monkeypatch.setitem(_launch.TABLE, "noise", {90: row})
    found = _static_compile.compile_and_read(module.KERNEL, module.case, 90).findings
    if finding is None:
        assert found == []
    else:
        assert any(line.startswith(finding) for line in found), found


def test_tuning_needs_a_gpu(capsys):
    import torch
    from fogzo_bench import tune
    from fogzo_bench._options import BenchError

    if torch.cuda.is_available():
        pytest.skip("there is one")
    with pytest.raises(BenchError, match="--tune measures on a GPU: no CUDA device"):
        tune.run([])


@needs_triton
def test_every_kernel_of_the_table_has_a_call_to_be_tuned_by():
    from fogzo_bench import tune

    from fogzo_kernels import _launch

    assert set(tune.calls("cpu")) == set(_launch.TABLE)
    assert [k.name for k in tune.kernels_of([])] == [k.name for k in _launch.kernels()]
    names = [kernel.name for kernel in tune.kernels_of(["perturb_quantize"])]
    assert names == ["perturb_quantize", "perturb_quantize.tanh", "count_flips", "find_flips"]
    for follower, leader in tune.FOLLOWS.items():
        assert names.index(follower) > names.index(leader)


def test_a_kernel_that_follows_another_has_its_blocks():
    from fogzo_bench import tune

    from fogzo_kernels import _launch

    before = {name: dict(rows) for name, rows in _launch.TABLE.items()}
    for follower, leader in tune.FOLLOWS.items():
        for arch in _launch.ARCHITECTURES:
            assert _launch.pick(follower, arch).blocks == _launch.pick(leader, arch).blocks
            now, other = _launch.pick(follower, arch), _launch.pick(leader, arch)
            (name, size), *_ = other.blocks.items()
            with tune.in_force(leader, _launch.Row({name: 2 * size}, 2), arch):
                assert _launch.pick(leader, arch) == _launch.Row({name: 2 * size}, 2)
                assert _launch.pick(follower, arch) == _launch.Row(
                    {name: 2 * size}, now.warps, now.stages
                )
            rows = tune.nearest_first(now, sizes_too=False)
            assert [row.blocks for row in rows] == [now.blocks] * 3
    assert before == _launch.TABLE


def test_tuning_lets_sums_differ_by_a_rounding_alone(monkeypatch):
    import torch
    from fogzo_bench import tune
    from fogzo_bench._options import BenchError

    from fogzo_kernels import _launch

    monkeypatch.setattr(tune, "clean", lambda kernel, row, arch: True)

    def ask(name, differs):
        results = iter([torch.ones(1), *([torch.full((1,), 1 + differs)] * 99)])
        tune.tuned(_launch.Kernel(name, None, ()), lambda: next(results), 90, lambda call: 1.0)

    ask("compute_scale", 2.0**-23)
    with pytest.raises(BenchError, match="tune: compute_scale"):
        ask("compute_scale", 2.0**-20)
    with pytest.raises(BenchError, match="tune: noise"):
        ask("noise", 2.0**-23)


def test_tuning_takes_the_fastest_clean_row_and_leaves_the_table(monkeypatch):
    import torch
    from fogzo_bench import tune

    from fogzo_kernels import _launch

    kernel = _launch.Kernel("noise", None, ())
    before = dict(_launch.TABLE["noise"])
    tried = []

    def clock(call):
        row = _launch.pick("noise", 90)
        tried.append(row)
        return {2: 3.0, 4: 2.0, 8: 1.0}[row.warps] + row.blocks["TILES"] / 100

    monkeypatch.setattr(tune, "clean", lambda kernel, row, arch: row.blocks["TILES"] > 2)
    row, least, was = tune.tuned(kernel, lambda: torch.ones(3), 90, clock)
    assert (row.warps, row.blocks, least, was) == (8, {"TILES": 4}, 1.04, 2.04)
    assert len(tried) == 6  # 4 and 8 tiles by three numbers of warps; 2 tiles are not clean
    assert _launch.TABLE["noise"] == before
    assert tune.line("noise", 90, row, least, was) == (
        '"noise": sm_90=Row({"TILES": 4}, 8, 1)  # 1040000.0 us, before 2040000.0'
    )


def test_tuning_begins_no_candidate_after_its_limit(monkeypatch, capsys):
    import torch
    from fogzo_bench import tune

    from fogzo_kernels import _launch

    row = _launch.TABLE["probe_matmul.group.int8"][90]
    rows = tune.nearest_first(row)
    assert rows[0] == row
    assert rows[1] != row
    assert len(rows) == len(list(tune.candidates(row)))
    now = iter(range(100))
    monkeypatch.setattr(tune.time, "monotonic", lambda: next(now))
    monkeypatch.setattr(tune, "clean", lambda kernel, row, arch: True)
    tried = []
    kernel = _launch.Kernel("noise", None, ())
    tune.tuned(kernel, lambda: torch.ones(3), 90, lambda call: tried.append(0) or 1.0, limit=4)
    assert len(tried) == 3  # the row in force, and two of the three that the limit lets begin
    assert "tune: noise: 3 of 9 candidates tried in 4 s" in capsys.readouterr().err


def test_tuning_refuses_a_row_with_another_result(monkeypatch):
    import torch
    from fogzo_bench import tune
    from fogzo_bench._options import BenchError

    from fogzo_kernels import _launch

    results = iter(torch.arange(9.0).reshape(9, 1))
    monkeypatch.setattr(tune, "clean", lambda kernel, row, arch: True)
    with pytest.raises(BenchError, match="tune: noise"):
        tune.tuned(_launch.Kernel("noise", None, ()), lambda: next(results), 90, lambda call: 1.0)
