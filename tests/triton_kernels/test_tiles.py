"""64-bit arithmetic on sizes that no test can hold in memory."""

from __future__ import annotations

import pytest
import torch
import triton
import triton.language as tl

from fogzo_kernels._triton import tiles


@triton.jit
def index_kernel(out, lead, group, STRIDE: tl.constexpr, BLOCK: tl.constexpr):
    ahead = tl.arange(0, BLOCK)
    index = tiles.scale_index(lead.to(tl.int64), ahead * STRIDE, group.to(tl.int64))
    tl.store(out + ahead, index)


@pytest.mark.parametrize("stride", [1, 7])
@pytest.mark.parametrize("lead", [0, 5, 1023, 2**31 - 3, 2**33 + 11, 2**35 - 448])
@pytest.mark.parametrize("group", [1, 3, 128, 1031, 2**30 - 1, 2**30 + 1, 2**33 + 12, 2**35])
def test_scale_index_is_the_quotient(lead, group, stride):
    out = torch.empty(64, dtype=torch.int64)
    index_kernel[(1,)](out, lead, group, STRIDE=stride, BLOCK=64)
    assert out.tolist() == [(lead + stride * i) // group for i in range(64)]


@triton.jit
def place_kernel(out, table, program, TILES: tl.constexpr, STEPS: tl.constexpr):
    row = tiles.find_row(table, program.to(tl.int64), STEPS)
    tile, lead, low, high = tiles.place(row, program.to(tl.int64), TILES, False)
    tl.store(out, tl.load(row + tiles.TENSOR))
    tl.store(out + 1, tile)
    tl.store(out + 2, lead)
    tl.store(out + 3, low.to(tl.int64))
    tl.store(out + 4, high.to(tl.int64))


@pytest.mark.parametrize("per_program", [1, 4])
def test_programs_cover_every_element_of_every_tensor_once(per_program):
    from fogzo_kernels._check import Draw, View
    from fogzo_kernels._triton import table as tables

    sizes = ((3, 129, 1000, 1024), (1, 5000, 2**35 - 5000, 5000), (2, 64, 0, 64), (4, 1, 2**33, 40))
    rows = [
        tables.row(
            View("torch", "cpu", (r, c), r, c),
            Draw("clipped", "published", 0, 0, number, 0, 1, offset, pitch),
            per_program,
        )
        for number, (r, c, offset, pitch) in enumerate(sizes)
    ]
    table, steps, programs = tables.device_table(rows, torch.device("cpu"))
    seen: list[list[int]] = [[] for _ in sizes]
    out = torch.empty(5, dtype=torch.int64)
    for program in range(programs):
        place_kernel[(1,)](out, table, program, TILES=per_program, STEPS=steps)
        number, tile, lead, low, high = out.tolist()
        r, c, offset, pitch = sizes[number]
        for ahead in range(low, high):
            local, k = lead + ahead, tile * 1024 + ahead
            assert k == offset + local // c * pitch + local % c
            seen[number].append(local)
    for number, (r, c, _, _) in enumerate(sizes):
        assert sorted(seen[number]) == list(range(r * c))
