"""fogzo bench --static on CUDA kernels: what it reads of object files, and what it must find."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest
from fogzo_bench import _static_cuda as static
from fogzo_bench import _static_read as read
from fogzo_bench._static_cuda_table import TABLE, Expected, Product
from fogzo_bench._static_wgmma import touched_in_flight

needs_tools = pytest.mark.skipif(static.absent() is not None, reason=str(static.absent()))
EXACT = ("--fmad=false", "-prec-div=true", "-prec-sqrt=true", "-ftz=false")
SOURCE = """
struct Job { const float* x; const float4* y; float* out; int n; };
#define AT blockIdx.x * blockDim.x + threadIdx.x
namespace fogzo {
template <int k> __global__ void __launch_bounds__(128) good(Job j) {
    const float4 y = j.y[AT];
    j.out[AT] = (y.x * 3.0f + y.y) / (y.z + sqrtf(y.w)) + k;
}
template __global__ void good<0>(Job);
__global__ void __launch_bounds__(128) narrow(Job j) {
    const int i = 4 * (AT);
    j.out[AT] = j.x[i] + j.x[i + 1] + j.x[i + 2] + j.x[i + 3];
}
__global__ void __launch_bounds__(128) twice(Job j) {  // one array, read by two wide loads
    const float4 y = j.y[AT], z = j.y[j.n + AT];
    j.out[AT] = y.x + y.y + y.z + y.w + z.x + z.y + z.z + z.w;
}
__global__ void __launch_bounds__(1024, 2) spilled(Job j) {
    float a[64];
    for (int i = 0; i < 64; ++i) a[i] = j.x[64 * (AT) + i];
    for (int k = 0; k < j.n; ++k)
        for (int i = 0; i < 64; ++i) a[i] = a[(i * 7 + 1) % 64] * a[i] + j.x[k];
    for (int i = 0; i < 64; ++i) j.out[64 * (AT) + i] = a[i];
}
__global__ void __launch_bounds__(128) stack(Job j) {
    float a[32];
    for (int i = 0; i < 32; ++i) a[(i * j.n) & 31] = j.x[i];
    j.out[AT] = a[(threadIdx.x ^ j.n) & 31];
}
__global__ void unbounded(Job j) { j.out[AT] = 1.0f; }
__global__ void __launch_bounds__(128) approximate(Job j) {
    j.out[AT] = __fdividef(j.x[0], j.x[1]);
}
__global__ void __launch_bounds__(128) floored(Job j) { j.out[AT] = floorf(j.x[0]); }
__global__ void __launch_bounds__(128) strange(Job j) { j.out[AT] = 1.0f; }
}
"""
KERNELS = ("good", "narrow", "twice", "spilled", "stack", "unbounded", "approximate", "floored")


def compiled(folder, monkeypatch, *flags, **expected):
    """Findings by kernel of SOURCE for sm_90a; every kernel is exact and reads no array widely."""
    for name in KERNELS:
        row = {"op": "noise", "work": lambda arguments: [], **expected.get(name, {})}
        monkeypatch.setitem(TABLE, name, Expected(**row))
    (folder / "a.cu").write_text(SOURCE)
    arch = ["-gencode=arch=compute_90a,code=sm_90a", "-gencode=arch=compute_90,code=compute_90"]
    command = ["nvcc", "-std=c++17", "-O3", *arch, *flags, "-c", "a.cu", "-o", "a.cu.o"]
    subprocess.run(command, cwd=folder, check=True)
    found = static.dissected(folder / "a.cu.o")
    assert {kernel.arch for kernel in found} == {90}
    return {kernel.label: kernel.findings for kernel in found}


@needs_tools
def test_planted_faults_are_found(tmp_path, monkeypatch):
    wide = {"loads16": 1}
    found = compiled(
        tmp_path,
        monkeypatch,
        *EXACT,
        good=wide,
        narrow=wide,
        twice={"loads16": 2, "tensor": "HMMA"},
    )
    assert found.pop("good<0>") == []
    assert found.pop("narrow") == [
        "0 instructions for 16 bytes, expected one for each of 1 arrays read",
        "0 arrays are read 16 bytes at a time, expected 1",
    ]
    assert found.pop("twice") == [
        "no HMMA; tensor-core instructions: none",
        "1 arrays are read 16 bytes at a time, expected 2",
    ]
    spills = found.pop("spilled")
    assert any(line.startswith("spills: ") for line in spills), spills
    assert any("bytes of stack" in line for line in found.pop("stack"))
    assert [line[:20] for line in found.pop("unbounded")] == ["no __launch_bounds__"]
    assert [line[:16] for line in found.pop("approximate")] == ["not exact: div.a"]
    assert found.pop("floored") == ["not exact: cvt.rmi.f32.f32"]
    assert found == {"strange": ["_static_cuda_table.py says nothing of strange"]}


@needs_tools
@pytest.mark.parametrize(
    ("flag", "finding"),
    [("--fmad=true", "fma.rn.f32"), ("-prec-div=false", "div.full.f32"), ("-ftz=true", "ftz")],
)
def test_a_flag_that_is_not_exact_is_found(tmp_path, monkeypatch, flag, finding):
    flags = [given for given in EXACT if given.partition("=")[0] != flag.partition("=")[0]]
    found = compiled(tmp_path, monkeypatch, *flags, flag)["good<0>"]
    assert any(line.startswith("not exact: ") and finding in line for line in found), found


@needs_tools
def test_the_noise_kernels_have_no_finding():
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, "-m", "fogzo.cli", "bench", "--static", "noise"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    for arch in (80, 90, 100):
        assert f"sm_{arch} noise, cuda noise_kernel<0, 1>:" in done.stdout


def test_a_kernel_that_was_not_compiled_is_found(monkeypatch):
    monkeypatch.setattr(static, "objects", lambda ops: [])
    found = static.kernels(["noise"])
    assert [(kernel.arch, kernel.label) for kernel in found] == [
        (arch, "noise_kernel") for arch in (80, 90, 100)
    ]
    assert all(kernel.findings for kernel in found)


def test_what_is_missing_is_named(monkeypatch):
    monkeypatch.setattr(static.shutil, "which", lambda name, path=None: None)
    assert str(static.absent()).startswith("no nvcc and no cmake and no ninja and no c++filt")


@pytest.mark.parametrize(
    ("signature", "parts"),
    [
        ("void fogzo::f<2, 0>(fogzo::Job)", ("f", ("2", "0"))),
        ("void fogzo::f<(int)2, fogzo::S<8, 4> >(fogzo::Job)", ("f", ("2", "S<8, 4>"))),
        ("fogzo::(anonymous namespace)::g(fogzo::Job)", ("g", ())),
    ],
)
def test_names_and_arguments(signature, parts):
    assert static.parts_of(static.label_of(signature)) == parts


def test_arrays_are_told_by_their_addresses():
    ptx = """
ld.param.u64 %rd1, [k_param_0];
ld.param.u64 %rd2, [k_param_0+8];
ld.param.u64 %rd9, [k_param_0+16];
cvta.to.global.u64 %rd3, %rd1;
cvta.to.global.u64 %rd4, %rd2;
cvta.to.global.u64 %rd10, %rd9;
add.s64 %rd5, %rd3, %rd6;
@%p1 ld.global.nc.v4.f32 {%f1, %f2, %f3, %f4}, [%rd5];
ld.global.v4.f32 {%f1, %f2, %f3, %f4}, [%rd5+16];
cp.async.cg.shared.global [%r1], [%rd4], 16, %r2;
ld.global.f32 %f5, [%rd10];
"""
    one, two = frozenset({"k 0"}), frozenset({"k 0+8"})
    assert read.wide_arrays(ptx) == {one, two}
    table = "ld.global.u64 %rd11, [%rd10+8];\nld.global.u64 %rd12, [%rd10+24];\n"
    table += "ld.v4.u32 {%r1, %r2, %r3, %r4}, [%rd11];\nld.v4.u32 {%r1, %r2, %r3, %r4}, [%rd12];\n"
    assert len(read.wide_arrays(ptx + table)) == 4


PIPELINE = """
        /*0000*/                   LDS.128 R160, [R3] ;
        /*0010*/                   WARPGROUP.ARRIVE ;
        /*0020*/                   IGMMA.64x128x32.S8.S8 R24, R160, gdesc[UR4], R24 ;
        /*0030*/                   IGMMA.64x128x32.S8.S8 R88, R164, gdesc[UR4], R88, gsb0 ;
        /*0040*/                   {between} ;
        /*0050*/                   IGMMA.64x128x32.S8.S8 R24, R152, gdesc[UR8], R24, gsb0 ;
        /*0060*/                   WARPGROUP.DEPBAR.LE gsb0, 0x1 ;
        /*0070*/                   {behind} ;
        /*0080*/                   WARPGROUP.DEPBAR.LE gsb0, 0x0 ;
        /*0090*/                   IADD3 R24, R24, R88, R152 ;
"""


@pytest.mark.parametrize(
    ("between", "behind", "wrong"),
    [
        ("PRMT R152, R9, 0x5140, R10", "LOP3.LUT R160, R4, 0xf, RZ, 0xc0, !PT", ""),
        ("PRMT R163, R9, 0x5140, R10", "NOP", "PRMT at 0040"),
        ("LDS.64 R159, [R3]", "NOP", "LDS.64 at 0040"),
        ("NOP", "@P0 IMAD.WIDE R151, R2, R4, R6", "IMAD.WIDE at 0070"),
        ("STS [R3], R151", "NOP", "STS at 0040"),
        ("MOV R2, R160", "MOV R3, R87", "MOV at 0070"),
        ("NOP", "MOV R3, R88", ""),
    ],
)
def test_registers_of_a_product_under_way(between, behind, wrong):
    found = touched_in_flight(PIPELINE.format(between=between, behind=behind))
    assert found == ([f"{wrong} touches registers of a product"] if wrong else [])


def test_sizes_of_a_product_by_warpgroups():
    """Stages of 128 rows of x and 256 rows of codes, 128 with a scale a group; and 1 KiB beside."""
    for shape, columns in (("WgmmaShape<false>", 256), ("WgmmaShape<true>", 128)):
        for grouped in (shape, shape.replace("false", "0").replace("true", "1")):
            product = Product.of_warpgroups(("2", "2", grouped))
            assert (product.block_m, product.block_n) == (128, columns)
            assert product.shared(227 * 1024, 1024) == 4 * (128 * 128 + columns * 32) + 1024
    wide = Product.of_warpgroups(("1", "8", "WgmmaShape<false>"))
    assert wide.shared(227 * 1024, 1024) == 3 * (128 * 256 + 256 * 128) + 1024
