"""The CUDA probe_matmul: int8 bit for bit against exact sums, the rest within float32's rounding.

On a GPU, or on the CPU through the emulator of tests/cuda_on_host; by products of warps and, where
there is compute capability 9.0, of warpgroups.
"""

from __future__ import annotations

import importlib

import numpy as np
import pytest
import torch
from helpers import assert_same, grid_id

import fogzo_kernels as fk
from fogzo_kernels import _native

pytestmark = pytest.mark.gpu
DEVICE = "cpu" if _native.CUDA_ON_HOST else "cuda"
GRIDS = (
    fk.Grid("sign"),
    fk.Grid("ternary"),
    fk.Grid("mid-rise", 2),
    fk.Grid("mid-rise", 3),
    fk.Grid("mid-tread", 4),
    fk.Grid("mid-tread", 5),
    fk.Grid("mid-rise", 7),
    fk.Grid("mid-rise", 8),
)
# A single product; one over the rows of few and of many, columns of a tile, k of a step and of 16
# bytes; a k that is split.
SHAPES = ((1, 1, 1), (16, 64, 128), (33, 65, 129), (3, 20, 1040))
UNIT = 2.0**-24
native = importlib.import_module("fogzo_kernels.probe_matmul.native")


@pytest.fixture(params=native.KERNELS, autouse=True)
def kernel(request):
    """Every test by both kernels, but for float32 x, which warps alone take."""
    reason = fk.why_not("cuda")
    if reason is None and request.param == "wgmma":
        if not _native.CUDA_ON_HOST and torch.cuda.get_device_capability() != (9, 0):
            reason = "wgmma needs compute capability 9.0"
        if request.node.callspec.params.get("dtype") == "float32":
            reason = "wgmma takes no float32 x"
    if reason is not None:
        pytest.skip(reason)
    with native.use_kernel(request.param):
        yield request.param


def call(x, codes, scale, grid, bias=None, **named):
    """The CUDA result of CPU tensors, its output NaN before."""
    moved = [a.to(DEVICE) if isinstance(a, torch.Tensor) else a for a in (x, scale, bias)]
    named = {name: value.to(DEVICE) for name, value in named.items()}
    parts = {
        fk.Packed: lambda c: fk.Packed(c.data.to(DEVICE), c.bits, c.shape),
        fk.Flips: lambda c: fk.Flips(*(a.to(DEVICE) for a in (c.base, c.index, c.code, c.count))),
    }
    codes = parts.get(type(codes), lambda c: c.to(DEVICE))(codes)
    sides = [len(a.shape) == 3 and a.shape[0] for a in (x, codes) if hasattr(a, "shape")]
    sides = len(codes.count) if type(codes) is fk.Flips else max(1, *sides)
    dtype = torch.float32 if x.dtype == torch.int8 else x.dtype
    n = (codes.base if type(codes) is fk.Flips else codes).shape[-2]
    out = torch.full((sides, x.shape[-2], n), float("nan"), dtype=dtype, device=DEVICE)
    with fk.use_backend("cuda"):
        got = fk.probe_matmul(moved[0], codes, moved[1], grid, moved[2], **named, out=out)
    assert got is out
    return got.cpu()


def case(grid, m, n, k, groups=1, sides=(0, 0), dtype="int8", seed=0):
    """x, codes, scale and the keywords of a random call; sides of x and of codes, 0 for 2-D."""
    generator = torch.Generator().manual_seed(seed)
    x_shape = (*([sides[0]] if sides[0] else []), m, k)
    code_shape = (*([sides[1]] if sides[1] else []), n, k)
    codes = torch.randint(0, grid.levels, code_shape, generator=generator, dtype=torch.uint8)
    shape = {0: (), 1: (n, 1)}.get(groups, (n, groups, 1))
    scale = torch.rand(shape, generator=generator) + 0.1
    if dtype != "int8":
        return torch.randn(x_shape, generator=generator).to(getattr(torch, dtype)), codes, scale, {}
    x = torch.randint(-128, 128, x_shape, generator=generator, dtype=torch.int8)
    return x, codes, scale, {"x_scale": torch.rand(x_shape[:-1], generator=generator) + 0.01}


def exact(grid, x, codes, scale, bias=None, x_scale=None):
    """Integer sums of twice the values, then each rounding of the kernels in float32."""
    k = codes.shape[-1]
    unit = np.float32(0.5 if grid.kind == "mid-rise" else 1)
    integers = np.rint((codes.numpy() * grid.step + grid.v_min) / unit).astype(np.int64)
    groups = scale.shape[1] if scale.ndim == 3 else 1
    a = scale.numpy().reshape(-1, groups) if scale.ndim else scale.numpy().reshape(1, 1)
    parts = np.einsum(
        "...mgk,...ngk->...gmn",
        x.numpy().astype(np.int64).reshape(*x.shape[:-1], groups, k // groups),
        integers.reshape(*codes.shape[:-1], groups, k // groups),
    ).astype(np.float32)
    if groups == 1:
        y = parts[..., 0, :, :] * (unit * a[:, 0])
    else:
        y = np.zeros_like(parts[..., 0, :, :])
        for group in range(groups):
            y = y + a[:, group] * parts[..., group, :, :]
        y = y * unit
    y = y * x_scale.numpy()[..., None]
    y = y if bias is None else y + bias.numpy()
    return torch.from_numpy(y if y.ndim == 3 else y[None])


@pytest.mark.parametrize("packed", [True, False], ids=["packed", "bytes"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_int8_equals_exact_sums(grid, packed):
    for m, n, k in SHAPES:
        x, codes, scale, named = case(grid, m, n, k, k % 2)
        bias = torch.linspace(-1, 1, n) if m > 1 else None
        given = fk.pack(codes, grid.storage_bits) if packed else codes
        assert_same(call(x, given, scale, grid, bias, **named),
                    exact(grid, x, codes, scale, bias, **named))  # fmt: skip


@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[2], GRIDS[4], GRIDS[7]], ids=grid_id)
def test_int8_of_several_tiles(grid):
    """Rows, columns and steps just beyond a tile and a ring of stages, for two sides at once."""
    x, codes, scale, named = case(grid, 129, 131, 5 * 128 + 16, 1, (0, 2))
    got = call(x, fk.pack(codes, grid.storage_bits), scale, grid, **named)
    assert_same(got, exact(grid, x, codes, scale, **named))


@pytest.mark.parametrize("sides", [(0, 3), (3, 0), (3, 3), (0, 1), (1, 0)])
@pytest.mark.parametrize("k", [40, 1100])
def test_int8_of_shared_and_own_activations(sides, k):
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, named = case(grid, 4, 70, k, 1, sides)
    got = call(x, fk.pack(codes, 2), scale, grid, **named)
    few = x if x.ndim == 2 or codes.ndim == 3 else x.reshape(-1, k)
    if few is not x:
        named = {"x_scale": named["x_scale"].reshape(-1)}
    assert_same(got, exact(grid, few, codes, scale, **named).reshape(got.shape))


@pytest.mark.parametrize(("groups", "k"), [(2, 128), (2, 256), (3, 51), (5, 20), (4, 320)])
@pytest.mark.parametrize("grid", [GRIDS[0], GRIDS[2], GRIDS[4], GRIDS[7]], ids=grid_id)
def test_int8_group_scales(grid, groups, k):
    x, codes, scale, named = case(grid, 5, 66, k, groups)
    got = call(x, fk.pack(codes, grid.storage_bits), scale, grid, **named)
    assert_same(got, exact(grid, x, codes, scale, **named))


@pytest.mark.parametrize("grid", [GRIDS[2], GRIDS[7]], ids=grid_id)
def test_int8_group_scales_where_a_share_ends_inside_a_group(grid):
    """Both parts of a group are scaled: three roundings more than its sum's, twice allowed."""
    x, codes, scale, named = case(grid, 5, 60, 1152, 3)
    got = call(x, fk.pack(codes, grid.storage_bits), scale, grid, **named)
    values = (codes.double() * grid.step + grid.v_min).abs() * scale.max()
    size = (x.double().abs() * named["x_scale"][:, None]) @ values.mT
    error = (got.double() - exact(grid, x, codes, scale, **named).double()).abs()
    assert (error <= 2 * (2 * 3 + 3) * UNIT * size).all()


def test_int8_sums_are_exact_at_the_extremes():
    """Sums beyond 32 bits: the lowest and the highest value against -128, for k over 2^17."""
    grid, k = fk.Grid("mid-tread", 8), 2**17 + 64
    x = torch.full((1, k), -128, dtype=torch.int8)
    codes = torch.zeros((2, k), dtype=torch.uint8)
    codes[1] = grid.levels - 1
    got = call(x, codes, torch.tensor(1.0), grid, x_scale=torch.ones(1))
    assert got[0, 0].tolist() == [128.0 * 128 * k, -128.0 * 127 * k]


def within(got, grid, x, codes, scale, bias, groups=1):
    """Sums of K terms rounded to float32 in any order, twice allowed; bfloat16's rounding on top.

    The tensor cores' own additions cut bits off: at most a unit of 2^-23 each, not half a one.
    """
    with fk.use_backend("reference"):
        wanted = fk.probe_matmul(x, codes, scale, grid, bias).double()
    n, k = codes.shape[-2:]
    spread = scale.expand(n, 1) if scale.ndim < 3 else scale[..., 0]
    weight = spread.double().repeat_interleave(k // spread.shape[1], 1)
    weight = weight * (codes.double() * grid.step + grid.v_min)
    size = x.double().abs() @ weight.abs().mT + bias.double().abs()
    limit = 2 * (k + 6) * UNIT * size
    if x.dtype == torch.bfloat16:
        limit = limit + 2.0**-7 * wanted.abs()
    assert got.dtype == x.dtype
    assert got.shape == wanted.shape
    assert ((got.double() - wanted).abs() <= limit).all()


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("grid", GRIDS, ids=grid_id)
def test_float_activations(grid, dtype):
    for (m, n, k), groups in (((1, 1, 1), 0), ((33, 65, 129), 1), ((5, 66, 51), 3)):
        x, codes, scale, _ = case(grid, m, n, k, groups, (0, 0), dtype)
        bias = torch.linspace(-1, 1, n)
        got = call(x, fk.pack(codes, grid.storage_bits), scale, grid, bias)
        within(got, grid, x, codes, scale, bias)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_float_sums_of_a_split_k(dtype):
    """Equal bits in every run: the shares are added in their order."""
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, _ = case(grid, 3, 20, 1040, 1, (0, 2), dtype)
    bias = torch.linspace(-1, 1, 20)
    got = call(x, fk.pack(codes, 2), scale, grid, bias)
    within(got, grid, x, codes, scale, bias)
    assert torch.equal(call(x, fk.pack(codes, 2), scale, grid, bias), got)


@pytest.mark.parametrize("dtype", ["float32"])
def test_float32_keeps_all_24_bits(dtype):
    """One term times a power of two is exact: bits that TF32 or a bfloat16 product would drop."""
    grid = fk.Grid("mid-tread", 8)
    three = 1 + 2.0**-9 + 2.0**-23  # bits in each of three bfloat16 numbers
    x = torch.tensor([[three], [-(2.0**100) * (1 + 2.0**-10 + 2.0**-22)], [3.0000002]])
    codes = torch.tensor([[129], [192], [0]], dtype=torch.uint8)
    got = call(x, codes, torch.tensor(1.0), grid)
    assert torch.equal(got[0], x @ torch.tensor([[1.0, 64.0, -128.0]]))


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_infinities_and_nans_go_where_they_go_in_the_reference(dtype):
    grid = fk.Grid("ternary")
    x, codes, scale, _ = case(grid, 6, 7, 40, 0, (0, 0), dtype)
    x[1, 3], x[2, 5], x[3, 1], x[4, 0] = float("inf"), float("-inf"), float("nan"), 3e38
    x[5, :] = 0
    with fk.use_backend("reference"):
        wanted = fk.probe_matmul(x, codes, scale, grid)
    got = call(x, codes, scale, grid)
    assert torch.equal(torch.isnan(got), torch.isnan(wanted))
    assert torch.equal(torch.isinf(got), torch.isinf(wanted))
    assert torch.equal(got[0, 5], torch.zeros(7, dtype=x.dtype))


@pytest.mark.parametrize("x_sides", [0, 3])
@pytest.mark.parametrize("groups", [1, 4])
@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("grid", [fk.Grid("mid-tread", 3), fk.Grid("mid-rise", 8)], ids=grid_id)
def test_flips_equal_their_codes(grid, dtype, groups, x_sides):
    """int8 sums of flips are as exact as those of the codes: equal bits but for groups."""
    x, base, scale, named = case(grid, 35, 34, 104, groups, (x_sides, 0), dtype)
    generator = torch.Generator().manual_seed(1)
    counts = torch.tensor([0, 5, 200])
    index = torch.full((3, 203), -1)
    code = torch.zeros((3, 203), dtype=torch.uint8)
    sides = base.repeat(3, 1, 1)
    for side, count in enumerate(counts.tolist()):
        found = torch.randperm(base.numel(), generator=generator)[:count].sort()[0]
        new = torch.randint(0, grid.levels, (count,), generator=generator, dtype=torch.uint8)
        index[side, :count], code[side, :count] = found, new
        sides[side].view(-1)[found] = new
    bias = torch.linspace(-1, 1, 34)
    got = call(x, fk.Flips(base, index, code, counts), scale, grid, bias, **named)
    if dtype == "int8" and groups == 1:
        assert_same(got, exact(grid, x, sides, scale, bias, **named))
        return
    if dtype != "int8":
        within(got, grid, x, sides, scale, bias)
        return
    values = (sides.double() * grid.step + grid.v_min).abs() * scale.max()
    size = (x.double().abs() * named["x_scale"][..., None]) @ values.mT + 1
    error = (got.double() - exact(grid, x, sides, scale, bias, **named).double()).abs()
    assert (error <= (groups + 206) * UNIT * size).all()


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
def test_zero_sizes(shape, dtype):
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, named = case(grid, *shape, 0, (0, 0), dtype)
    bias = torch.arange(shape[1], dtype=torch.float32)
    with fk.use_backend("reference"):
        wanted = fk.probe_matmul(x, codes, scale, grid, bias, **named)
    assert torch.equal(call(x, codes, scale, grid, bias, **named), wanted)


def test_arrays_that_begin_anywhere():
    """Rows of 16 bytes that begin between them are packed anew; strided arguments are copied."""
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, named = case(grid, 4, 9, 64, 1)
    want = exact(grid, x, codes, scale, **named)
    memory = torch.zeros(x.numel() + 3, dtype=torch.int8)
    memory[3:] = x.reshape(-1)
    shifted = memory.to(DEVICE)[3:].view(4, 64)
    bytes_ = torch.zeros(9 * 16 + 1, dtype=torch.uint8)
    bytes_[1:] = fk.pack(codes, 2).data.reshape(-1)
    packed = fk.Packed(bytes_.to(DEVICE)[1:].view(9, 16), 2, (9, 64))
    scale_of_x = named["x_scale"].to(DEVICE)
    with fk.use_backend("cuda"):
        got = fk.probe_matmul(shifted, packed, scale.to(DEVICE), grid, x_scale=scale_of_x)
        strided = x.T.contiguous().to(DEVICE).T
        again = fk.probe_matmul(strided, packed, scale.to(DEVICE), grid, x_scale=scale_of_x)
    assert_same(got.cpu(), want)
    assert_same(again.cpu(), want)


@pytest.mark.parametrize("dtype", ["float32"])
def test_bad_arguments_are_refused_before_anything_is_launched(dtype):
    cuda = _native.module("_cuda")
    x, y = torch.zeros(2, 8, device=DEVICE), torch.full((2, 3), 7.0, device=DEVICE)
    codes = torch.zeros((3, 8), dtype=torch.uint8, device=DEVICE)
    scale, memory = torch.ones((), device=DEVICE), torch.zeros(4096, device=DEVICE)
    good = {
        "x": x.data_ptr(), "x_scale": 0, "codes": codes.data_ptr(), "scale": scale.data_ptr(),
        "bias": 0, "y": y.data_ptr(), "memory": memory.data_ptr(), "bytes": 16384, "x_sides": 1,
        "code_sides": 1, "rows": 2, "out_cols": 3, "cols": 8, "scale_rows": 1, "scale_cols": 1,
        "grid": 3, "bits": 2, "stored_bits": 8, "x_type": 0, "kernel": 0,
        "stream": 0,
    }  # fmt: skip
    bad = [
        ("x", 0, "null"), ("codes", 0, "null"), ("scale", 0, "null"), ("y", 0, "null"),
        ("memory", 0, "null"), ("bytes", 16, "workspace"), ("x", x.data_ptr() + 2, "aligned"),
        ("y", y.data_ptr() + 1, "aligned"), ("x_sides", -1, "size"), ("rows", -1, "size"),
        ("cols", 2**31, "size"), ("out_cols", 2**41, "size"), ("scale_rows", 2, "scale"),
        ("scale_cols", 3, "scale"), ("grid", 4, "grid"), ("bits", 9, "grid"),
        ("stored_bits", 1, "grid"), ("stored_bits", 3, "bits"), ("x_type", 3, "x_type"),
        ("x_type", 2, "null"), ("kernel", 2, "kernel has"), ("kernel", 1, "kernel has"),
    ]  # fmt: skip
    for name, value, text in bad:
        status = cuda.probe_matmul(*{**good, name: value}.values())
        assert status != 0, name
        assert text in cuda.status_text(status), (name, cuda.status_text(status))
    assert (y.cpu() == 7).all()
    assert cuda.probe_matmul(*good.values()) == 0
    assert (y.cpu() == 0).all()


def test_wgmma_refuses_float32_by_name():
    grid = fk.Grid("ternary")
    x, codes, scale, _ = case(grid, 3, 4, 16, 0, (0, 0), "float32")
    with native.use_kernel("wgmma"), pytest.raises(
        ValueError, match=r"probe_matmul: kernel has .* does not take this x, expected 0 \(mma\)"
    ):  # fmt: skip
        call(x, codes, scale, grid)


def test_flips_that_lie_are_not_followed(kernel):
    """Counts over the capacity and elements outside the weight, which no host can see."""
    grid = fk.Grid("mid-tread", 4)
    x, base, scale, named = case(grid, 2, 3, 8, 0)
    want = exact(grid, x, base, scale, **named).repeat(3, 1, 1)
    base[0, 0] = 0
    want[2] = exact(grid, x, base, scale, **named)[0]
    x, base, scale = case(grid, 2, 3, 8, 0)[:3]
    index = torch.tensor([[24, 25], [-5, -1], [0, 2**40]])
    code, count = torch.zeros((3, 2), dtype=torch.uint8), torch.tensor([2, 2, 9])
    y, memory = torch.full((3, 2, 3), 7.0), torch.zeros(65536)
    arrays = [
        a.to(DEVICE) for a in (x, named["x_scale"], base, index, code, count, scale, y, memory)
    ]
    at = [a.data_ptr() for a in arrays]
    sizes = (65536, 1, 3, 2, 3, 8, 1, 1)
    cuda, kind = _native.module("_cuda"), (2, 4, 2, native.KERNELS.index(kernel), 0)
    assert cuda.probe_matmul_flips(*at[:6], 2, at[6], 0, *at[7:], *sizes, *kind) == 0
    assert_same(arrays[7].cpu(), want)
