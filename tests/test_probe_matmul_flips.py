"""Products of Flips by the native probe_matmul: both ways to make them, and which one is taken."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from test_probe_matmul_native import ISAS, UNIT, call, case, cpu, on_all, restore  # noqa: E402, F401

import fogzo_kernels as fk  # noqa: E402


@pytest.mark.parametrize("share", [0.0, 0.002, 0.01, 0.2])  # corrections to a product a side
@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("x_sides", [0, 3])
@pytest.mark.parametrize("groups", [0, 1, 4])
def test_flips_equal_their_codes(share, dtype, x_sides, groups):
    grid = fk.Grid("mid-tread", 3)
    x, base, scale, kwargs = case(grid, 67, 30, 104, groups, (x_sides, 0), dtype)
    count = int(share * base.numel())
    generator = torch.Generator().manual_seed(1)
    index = torch.full((3, count + 2), -1)
    code = torch.zeros((3, count + 2), dtype=torch.uint8)
    for side in range(3):
        index[side, :count] = torch.randperm(base.numel(), generator=generator)[:count].sort()[0]
        code[side, :count] = torch.randint(0, 8, (count,), generator=generator)
    flips = fk.Flips(base, index, code, torch.full((3,), count))
    bias = torch.linspace(-1, 1, 30)
    results = on_all(x, flips, scale, grid, bias, **kwargs)
    expected = call("reference", x, flips, scale, grid, bias, **kwargs).double()
    # Terms of the dense product and of the corrections, none larger than this.
    rows = x.double().abs() * kwargs.get("x_scale", torch.ones(())).double()[..., None]
    most = rows.sum(-1).max() * scale.max() * 8 + 1
    rounding = 2.0**-7 * expected.abs() if dtype == "bfloat16" else 0
    for key, got in results.items():
        assert ((got.double() - expected).abs() <= (104 + count + 6) * UNIT * most + rounding).all()
        assert torch.equal(got, results[key[0], 1]), key


@pytest.mark.parametrize(
    ("index", "count", "says"),
    [
        ([24], 1, "index has numbers"), ([-1], 1, "index has numbers"), ([0], 2, "size is"),
        ([0], -1, "size is"), ([5, 4], 2, "index has numbers"), ([5, 5], 2, "index has numbers"),
    ],
)  # fmt: skip
def test_flips_out_of_range_or_order_are_refused_by_the_binding(index, count, says):
    memory = torch.zeros(1 << 16, dtype=torch.uint8)
    x, y, scale = torch.zeros(2, 8), torch.full((2, 3), 7.0), torch.ones(())
    base, code = torch.zeros((3, 8), dtype=torch.uint8), torch.zeros((1, 2), dtype=torch.uint8)
    arrays = [base, torch.tensor([index]), code, torch.tensor([count])]
    status = cpu.probe_matmul_flips(
        x.data_ptr(), 0, *(a.data_ptr() for a in arrays), len(index), scale.data_ptr(), 0,
        y.data_ptr(), memory.data_ptr(), memory.numel(), 1, 1, 2, 3, 8, 1, 1, 3, 2, 0, 1,
    )  # fmt: skip
    assert cpu.status_text(status).startswith(says)
    assert (y == 7).all()


def flips_of(grid, base, total, sides):
    """So many flips in all, spread over sides as evenly as they go, and the codes of each side."""
    generator = torch.Generator().manual_seed(2)
    counts = torch.tensor([(total + side) // sides for side in range(sides)])
    index = torch.full((sides, int(counts.max())), -1)
    code = torch.zeros(index.shape, dtype=torch.uint8)
    codes = base.repeat(sides, 1, 1)
    for side, count in enumerate(counts.tolist()):
        places = torch.randperm(base.numel(), generator=generator)[:count].sort()[0]
        index[side, :count] = places
        code[side, :count] = (base.view(-1)[places].int() + 1).remainder(grid.levels)
        codes[side].view(-1)[places] = code[side, :count]
    return fk.Flips(base, index, code, counts), codes


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize(("dtype", "bits"), [("int8", 2), ("int8", 8), ("float32", 2)])
@pytest.mark.parametrize(("m", "sides"), [(8, 2), (8, 8), (130, 2), (130, 8)])
def test_flips_take_the_way_that_the_rule_says(m, sides, dtype, bits, isa):
    """A product a side has the bits of the sides' codes; one that is corrected has others."""
    grid, n, k = fk.Grid("mid-rise", bits), 60, 200
    x, base, scale, kwargs = case(grid, m, n, k, 1, (0, 0), dtype)
    cpu.set_isa(isa)

    def corrected(total, x_sides=1):
        numbers = grid.number, bits, 2 if dtype == "int8" else 0
        return bool(cpu.probe_matmul_flips_corrected(total, x_sides, sides, m, n, k, *numbers))

    most = next((t for t in range(sides * n * k) if not corrected(t + 1)), sides * n * k)
    assert corrected(0, sides)
    assert not corrected(1, sides)
    for total in {most, most + 1} - {0, sides * n * k + 1}:
        flips, codes = flips_of(grid, base, total, sides)
        got = call("cpu", x, flips, scale, grid, **kwargs)
        wanted = call("cpu", x, codes, scale, grid, **kwargs)
        assert torch.equal(got, wanted) == (not corrected(total))
        assert ((got - wanted).abs() <= 1e-5 * wanted.abs().max()).all()


MEASURED = {  # of 768 x 768, shares of flips between which both ways took equal time
    "avx2": {
        (8, 8, "int8", 2): (0.003, 0.03), (8, 2, "float32", 2): (0.01, 0.1),
        (64, 2, "int8", 2): (0.01, 0.03), (64, 8, "int8", 2): (0.03, 0.1),
        (64, 2, "float32", 2): (0.03, 0.1), (512, 2, "int8", 2): (0.003, 0.03),
        (512, 8, "int8", 2): (0.03, 0.1), (512, 2, "int8", 8): (0.03, 0.1),
        (512, 8, "int8", 8): (0.03, 0.1), (512, 2, "float32", 2): (0.03, 0.1),
        (512, 8, "float32", 8): (0.1, 0.2), (2048, 2, "int8", 2): (0.003, 0.03),
        (2048, 8, "int8", 8): (0.03, 0.1), (2048, 8, "float32", 2): (0.1, 0.2),
    },
    "avx512-vnni": {
        (64, 2, "int8", 2): (0.001, 0.01), (512, 2, "int8", 8): (0.001, 0.01),
        (512, 8, "int8", 2): (0.01, 0.03), (512, 2, "float32", 2): (0.03, 0.1),
        (512, 8, "float32", 2): (0.03, 0.1), (2048, 8, "int8", 8): (0.003, 0.03),
    },
}  # fmt: skip


@pytest.mark.parametrize("isa", [isa for isa in ISAS if isa in MEASURED])
def test_the_rule_turns_where_both_ways_took_equal_time(isa):
    cpu.set_isa(isa)
    for (m, sides, dtype, bits), (below, above) in MEASURED[isa].items():
        numbers = m, 768, 768, 3, bits, 2 if dtype == "int8" else 0
        found = [
            cpu.probe_matmul_flips_corrected(round(share * sides * 768 * 768), 1, sides, *numbers)
            for share in (below, above)
        ]
        assert found == [1, 0], (m, sides, dtype, bits)


@pytest.mark.parametrize("shape", [(0, 3, 4), (3, 0, 4), (3, 4, 0)])
@pytest.mark.parametrize("dtype", ["int8", "float32", "bfloat16"])
@pytest.mark.parametrize("x_sides", [0, 3])
def test_zero_sizes_of_flips(shape, dtype, x_sides):
    x, base, scale, kwargs = case(fk.Grid("mid-rise", 2), *shape, 0, (x_sides, 0), dtype)
    none = torch.empty((3, 0), dtype=torch.int64)
    flips = fk.Flips(base, none, none.to(torch.uint8), torch.zeros(3, dtype=torch.int64))
    bias = torch.arange(1, shape[1] + 1, dtype=torch.float32)
    out = torch.full((3, *shape[:2]), float("nan"), dtype=x.dtype if not kwargs else torch.float32)
    for isa in ISAS:
        cpu.set_isa(isa)
        got = call("cpu", x, flips, scale, fk.Grid("mid-rise", 2), bias, out=out, **kwargs)
        assert (got == bias).all()
