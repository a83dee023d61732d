"""The calls that kernels are tuned by, small: each launches the kernel that it stands for."""

from __future__ import annotations

import pytest
import torch
from fogzo_bench._tune_calls import calls

from fogzo_kernels import _launch

MADE = calls("cpu", 8, 256, 136, 64)


@pytest.mark.parametrize("name", _launch.TABLE)
def test_the_call_of_a_kernel_launches_it(name: str, backend: str) -> None:
    before = set(_launch.launched)
    torch.manual_seed(0)
    call = MADE[name]()
    _launch.launched.clear()
    try:
        first = call().clone()
        assert name in _launch.launched
        again = call()
        assert torch.equal(again.nan_to_num(), first.nan_to_num())
        assert first.numel() > 0
    finally:
        _launch.launched |= before
