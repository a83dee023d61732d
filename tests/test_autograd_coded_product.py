"""Products with the values of codes: those of dequantized weights, in autocast's dtype too."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

import fogzo_kernels as fk
from fogzo.autograd import coded_product


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("scales", [(), (1,), (4, 1)], ids=str)
@pytest.mark.parametrize("rows", [0, 1, 31, 33, 100])
def test_the_product_is_that_of_the_values(rows, scales, packed):
    """Rows that do not share out evenly over the parts that halves are made in, and none."""
    grid, generator = fk.Grid("mid-rise", 2), torch.Generator().manual_seed(rows)
    codes = torch.randint(0, 4, (rows, 8), dtype=torch.uint8, generator=generator)
    scale = torch.rand((rows, *scales) if scales else (), generator=generator) + 0.5
    x = torch.randn(3, 8, generator=generator)
    given = fk.pack(codes, 2) if packed else codes
    values = fk.dequantize(codes, scale, grid)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        with torch.autocast("cpu", dtype, enabled=dtype is not torch.float32), torch.no_grad():
            got = coded_product(F.linear, x, given, scale, grid, None)
            want = F.linear(x, values)
        assert got.dtype is want.dtype is dtype
        assert torch.equal(got, want)
