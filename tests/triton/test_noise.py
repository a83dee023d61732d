"""Triton's noise in the interpreter: the bits of the contract."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import NOISES, SURROGATES, VIEWS, WIDE, Guarded, assert_same

import fogzo_kernels as fk

WHERE = {"seed": 0x0123456789ABCDEF, "step": 3, "tensor": 5, "probe": 2}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_equals_the_oracle(backend, surrogate, noise):
    for shape, offset, pitch in (*VIEWS, WIDE):
        place = {"offset": offset, "row_pitch": pitch, **WHERE}
        out = Guarded(shape, np.float32, "torch")
        fk.noise(shape, surrogate, noise=noise, **place, out=out.array)
        assert_same(
            out.array, oracle.noise(shape, surrogate, noise, **place), f"{shape} at {offset}"
        )
        out.check()


@pytest.mark.parametrize("change", [{"seed": 2**64 - 1}, {"seed": -(2**63)}, {"step": 2**32 - 1},
                                    {"tensor": 2**32 - 2}, {"probe": 2**32 - 1}])  # fmt: skip
def test_the_ends_of_the_ranges(backend, change):
    place = {**WHERE, **change}
    got = fk.noise((2, 1025), "hardtanh", **place)
    assert_same(got, oracle.noise((2, 1025), "hardtanh", "published", **place))


def test_seed_and_step_in_memory(backend):
    """0-dim CPU tensors are read by the check; those of a GPU by the kernel, as here."""
    from fogzo_kernels._check import Draw, View
    from fogzo_kernels.noise import triton_kernel

    seed, step = torch.tensor(-2), torch.tensor(2**32 - 1)
    draw = Draw("identity", "published", seed, step, 5, 2, 1, 0, 130)
    view = View("torch", "cpu", (2, 130), 2, 130)
    got = triton_kernel.noise(draw, torch.device("cpu"), view, None)
    want = {**WHERE, "seed": 2**64 - 2, "step": 2**32 - 1}
    assert_same(got, oracle.noise((2, 130), "identity", "published", **want))


def test_numpy_is_refused_by_name(backend):
    with pytest.raises(RuntimeError, match="triton: it takes torch tensors only"):
        fk.noise((2, 3), "identity", **WHERE, out=np.empty((2, 3), np.float32))
