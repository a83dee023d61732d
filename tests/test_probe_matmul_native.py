"""The native probe_matmul against the reference: every width, ragged shapes, exact int8 sums."""

from __future__ import annotations

import itertools

import pytest

torch = pytest.importorskip("torch")

import fogzo_kernels as fk  # noqa: E402
from fogzo_kernels import _native  # noqa: E402

if (reason := fk.why_not("cpu")) is not None:
    pytest.skip(reason, allow_module_level=True)

cpu = _native.cpu()
ISAS = [isa for isa in ("scalar", "avx2", "avx512-vnni") if cpu.set_isa(isa) == 0]
cpu.set_isa("auto")
GRIDS = [fk.Grid("sign"), fk.Grid("ternary"), fk.Grid("mid-rise", 2), fk.Grid("mid-tread", 4)]
WIDE = [fk.Grid("mid-rise", 3), fk.Grid("mid-tread", 5), fk.Grid("mid-rise", 8)]
UNIT = 2.0**-24  # a rounding to float32 is off by at most this much of the result


@pytest.fixture(autouse=True)
def restore():
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)
    cpu.set_isa("auto")


def call(backend, *args, **kwargs):
    with fk.use_backend(backend):
        return fk.probe_matmul(*args, **kwargs)


def on_all(*args, **kwargs):
    """The result by instruction set and threads."""
    results = {}
    for isa, threads in itertools.product(ISAS, (1, 2)):
        cpu.set_isa(isa)
        torch.set_num_threads(threads)
        results[isa, threads] = call("cpu", *args, **kwargs)
    return results


def case(grid, m, n, k, groups=0, sides=(0, 0), dtype="int8", seed=0):
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


def check(grid, x, codes, scale, bias=None, groups=1, **kwargs):
    """Native equals the reference within its sums' rounding, and for int8 scalar equals AVX2.

    A float32 dot product of K terms, however ordered, is off by at most K units of the sum of the
    terms' sizes; rounding the weight, the bias and the result adds 3. With int8 only the groups'
    totals, three products each and the bias are rounded. Two roundings to bfloat16 that differ are
    one unit in the last place apart, at most 2^-7 of the number.
    """
    expected = call("reference", x, codes, scale, grid, bias, **kwargs).double()
    n, k = codes.shape[-2:]
    spread = scale.expand(n, 1) if scale.ndim < 3 else scale[..., 0]
    plain = fk.unpack(codes) if isinstance(codes, fk.Packed) else codes
    weight = spread.double().repeat_interleave(k // spread.shape[1], 1) * (
        plain.double() * grid.step + grid.v_min
    )
    rows = x.double().abs() * kwargs.get("x_scale", torch.ones(())).double()[..., None]
    size = rows @ weight.abs().mT + (0 if bias is None else bias.double().abs())
    terms = groups + 6 if x.dtype == torch.int8 else k + 3
    bound = terms * UNIT * size + (2.0**-7 * expected.abs() if x.dtype == torch.bfloat16 else 0)
    results = on_all(x, codes, scale, grid, bias, **kwargs)
    first = results["scalar", 1]
    for (isa, threads), got in results.items():
        assert got.shape == expected.shape
        assert ((got.double() - expected).abs() <= bound).all(), (isa, threads)
        if x.dtype == torch.int8 or isa == "scalar":
            assert torch.equal(got, first), (isa, threads)
        assert torch.equal(got, results[isa, 1]), (isa, threads)


@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("grid", GRIDS + WIDE, ids=str)
@pytest.mark.parametrize("packed", [True, False])
def test_widths_and_dtypes(grid, dtype, packed):
    x, codes, scale, kwargs = case(grid, 9, 19, 75, 1, (0, 2), dtype)
    bias = torch.linspace(-1, 1, 19)
    check(grid, x, fk.pack(codes, grid.storage_bits) if packed else codes, scale, bias, **kwargs)


# One under, at and over: rows of a tile (6, 8), of a panel (16), codes of a word (16) and of a run
# (256 for float32, 1024 for int8); rows of a band (240 for float32, 512 for int8).
@pytest.mark.parametrize(
    ("m", "n", "k"),
    [(1, 1, 1), (5, 15, 15), (6, 16, 16), (7, 17, 17), (8, 33, 31), (13, 16, 257), (11, 129, 64),
     (2, 3, 1025), (3, 2, 2049), (241, 16, 16), (513, 17, 33)],
)  # fmt: skip
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_ragged_shapes(m, n, k, dtype):
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, kwargs = case(grid, m, n, k, 1, (0, 0), dtype)
    check(grid, x, fk.pack(codes, 2), scale, **kwargs)


# Panels of up to twelve columns are summed along k, from 32 of them on, if groups are whole eights.
@pytest.mark.parametrize("n", [*range(1, 15), 17, 26])
@pytest.mark.parametrize("grid", [*GRIDS, WIDE[2]], ids=str)
def test_few_columns(grid, n):
    bias = torch.linspace(-1, 1, n)
    for m, k, groups in (
        (13, 31, 1),
        (1, 32, 4),
        (25, 35, 1),
        (9, 263, 1),
        (7, 66, 6),
        (3, 776, 97),
    ):
        x, codes, scale, kwargs = case(grid, m, n, k, groups, (0, 2), "float32", seed=k)
        check(grid, x, fk.pack(codes, grid.storage_bits), scale, bias, groups, **kwargs)


def test_few_columns_read_no_further_than_the_last_row():
    """What lies behind x and the codes is not a number."""
    for m, n, k in ((1, 10, 37), (4, 3, 33), (6, 12, 39)):
        grid = fk.Grid("mid-rise", 2)
        x, codes, scale, _ = case(grid, m, n, k, 1, (0, 0), "float32")
        room = torch.full((m * k + 8,), torch.nan)
        room[: m * k] = x.flatten()
        check(grid, room[: m * k].view(m, k), codes, scale)


def test_few_columns_of_weights_that_overflow():
    """The sum is infinite, as the weights are; what fills a vector behind the last k adds 0."""
    codes, scale = torch.zeros((3, 33), dtype=torch.uint8), torch.tensor(3e38)
    results = on_all(torch.ones(2, 33), codes, scale, fk.Grid("mid-rise", 2))
    assert all((result == -torch.inf).all() for result in results.values())


@pytest.mark.parametrize("dtype", ["int8", "float32"])
@pytest.mark.parametrize(("groups", "k"), [(2, 64), (3, 51), (5, 20), (2, 2100), (64, 2048)])
@pytest.mark.parametrize(
    "grid", [fk.Grid("sign"), fk.Grid("mid-rise", 2), fk.Grid("mid-rise", 6), WIDE[2]], ids=str
)
def test_group_scales(grid, groups, k, dtype):
    x, codes, scale, kwargs = case(grid, 5, 18, k, groups, (0, 0), dtype)
    check(grid, x, fk.pack(codes, grid.storage_bits), scale, None, groups, **kwargs)


# Four products stay in 16 bits where their codes together are at most 128 off the middle.
@pytest.mark.parametrize("size", [128, 129])
@pytest.mark.parametrize("sign", [1, -1])
def test_four_codes_at_the_edge_of_16_bits(size, sign):
    grid, k = fk.Grid("mid-rise", 8), 44  # a whole vector of codes, then three words of four
    x = torch.full((11, k), 127, dtype=torch.int8)
    scale, x_scale = torch.ones(17, 1), torch.ones(11)
    for first in range(0, k, 2):
        codes = torch.full((2, 17, k), 128)
        four = torch.tensor([first, first + 1, *(first + 4, first + 5)])
        codes[1, -1, four[four < k]] += sign * (size // 4)
        codes[1, -1, first] += sign * (size - (four < k).sum() * (size // 4))
        check(grid, x, codes.to(torch.uint8).contiguous(), scale, x_scale=x_scale)


@pytest.mark.parametrize("sides", [(0, 3), (3, 0), (3, 3), (0, 1), (1, 0)])
@pytest.mark.parametrize("dtype", ["int8", "float32"])
def test_shared_and_own_activations(sides, dtype):
    grid = fk.Grid("ternary")
    x, codes, scale, kwargs = case(grid, 4, 20, 40, 0, sides, dtype)
    check(grid, x, codes, scale, **kwargs)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
def test_zero_sizes(shape, dtype):
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, kwargs = case(grid, *shape, 0, (0, 0), dtype)
    bias = torch.arange(shape[1], dtype=torch.float32)
    for got in on_all(x, codes, scale, grid, bias, **kwargs).values():
        assert torch.equal(got, call("reference", x, codes, scale, grid, bias, **kwargs))


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_int8_sums_are_exact_at_the_extremes(bits):
    """The largest sums that 16 and 32 bits meet: code v_max against -128, for k over 2^16."""
    grid = fk.Grid("mid-tread", bits)
    k = 65536 + 64
    x = torch.full((1, k), -128, dtype=torch.int8)
    codes = torch.zeros((16, k), dtype=torch.uint8)
    codes[1] = grid.levels - 1
    codes[2, ::2] = grid.levels - 1
    wanted = codes.double().mul(grid.step).add(grid.v_min).sum(1) * -128
    one = torch.ones(1)
    for got in on_all(x, codes, torch.tensor(1.0), grid, x_scale=one).values():
        assert torch.equal(got[0, 0, :3], wanted[:3].float())
    small = codes[:, :100].contiguous()
    for got in on_all(
        x[:, :100].contiguous(), small, torch.tensor(1.0), grid, x_scale=one
    ).values():
        assert torch.equal(got[0, 0], (small.double() + grid.v_min).sum(1).mul(-128).float())


def test_output_given_and_its_surroundings_stay():
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, kwargs = case(grid, 7, 21, 50)
    memory = torch.full((3, 7 * 21), float("nan"))
    out = memory[1].view(1, 7, 21)
    for isa in ISAS:
        cpu.set_isa(isa)
        memory.fill_(float("nan"))
        assert call("cpu", x, codes, scale, grid, out=out, **kwargs) is out
        assert torch.equal(out, call("reference", x, codes, scale, grid, **kwargs)) or isa
        assert not out.isnan().any()
        assert memory[0].isnan().all()
        assert memory[2].isnan().all()


def test_numpy_and_strided_arguments():
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, kwargs = case(grid, 6, 10, 32, 1, (0, 0), "float32")
    expected = call("cpu", x, codes, scale, grid)
    arrays = call("cpu", x.numpy(), codes.numpy(), scale.numpy(), grid)
    assert torch.equal(torch.from_numpy(arrays), expected)
    strided = call("cpu", x.mT.contiguous().mT, codes.mT.contiguous().mT, scale, grid)
    assert torch.equal(strided, expected)
    assert not kwargs


def test_not_a_number_stays_in_its_row():
    grid = fk.Grid("mid-rise", 2)
    x, codes, scale, _ = case(grid, 3, 5, 20, 1, (0, 0), "float32")
    x[1, 7] = float("nan")
    for got in on_all(x, codes, scale, grid).values():
        assert got[0, 1].isnan().all()
        assert not got[0, [0, 2]].isnan().any()


def test_refused_scale_writes_nothing():
    grid = fk.Grid("mid-rise", 2)
    x, codes, _, kwargs = case(grid, 2, 3, 8)
    out = torch.full((1, 2, 3), 7.0)
    with pytest.raises(ValueError, match="probe_matmul: scale has the value 0.0, expected"):
        call("cpu", x, codes, torch.zeros(3, 1), grid, out=out, **kwargs)
    assert (out == 7).all()


@pytest.mark.parametrize(
    ("broken", "says"),
    [
        ({"size": 10}, "workspace is too small"),
        ({"x_type": 7}, "x_type has an unknown number"),
        ({"stored_bits": 3}, "bits is out of range"),
    ],
)
def test_the_binding_names_what_is_wrong(broken, says):
    x, codes = torch.zeros((4, 8), dtype=torch.int8), torch.zeros((4, 2), dtype=torch.uint8)
    x_scale, scale, y = torch.ones(4), torch.ones(1), torch.full((4, 4), 7.0)
    memory = torch.zeros(1 << 16, dtype=torch.uint8)
    numbers = {"size": memory.numel(), "stored_bits": 2, "x_type": 2} | broken
    status = cpu.probe_matmul(
        *(a.data_ptr() for a in (x, x_scale, codes, scale)), 0, y.data_ptr(), memory.data_ptr(),
        numbers["size"], 1, 1, 4, 4, 8, 1, 1, 2, 2, numbers["stored_bits"], numbers["x_type"], 1,
    )  # fmt: skip
    assert cpu.status_text(status).startswith(says)
    assert (y == 7).all()


@pytest.mark.parametrize("sizes", [(0, 0, 2**63 - 1, 1), (4, 4, 8, 2**60), (0, 0, 2**62, 2**62)])
def test_no_size_of_a_workspace_overflows(sizes):
    for x_type in (0, 1, 2):
        assert cpu.probe_matmul_workspace(1, 1, *sizes, x_type, 2, 1) == 0
        assert cpu.probe_matmul_flips_workspace(1, *sizes, x_type, 1) == 0
