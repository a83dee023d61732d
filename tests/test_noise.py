"""noise: every element from its coordinates alone, the bits of DESIGN section 3."""

from __future__ import annotations

import numpy as np
import oracle
import pytest
import torch
from helpers import NOISES, SURROGATES, VIEWS, WIDE, Guarded, assert_same
from hypothesis import given
from hypothesis import strategies as st

import fogzo_kernels as fk

OPS = ("noise",)
WHERE = {"seed": 0x0123456789ABCDEF, "step": 3, "tensor": 5, "probe": 2}


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("surrogate", SURROGATES)
def test_equals_the_oracle(backend, surrogate, noise):
    for shape, offset, pitch in (*VIEWS, WIDE):
        place = {"offset": offset, "row_pitch": pitch, **WHERE}
        out = Guarded(shape, np.float32, "torch")
        got = fk.noise(shape, surrogate, noise=noise, **place, out=out.array)
        assert got is out.array
        want = oracle.noise(shape, surrogate, noise, **place)
        assert_same(got, want, f"{shape} at {offset}")
        out.check()


@pytest.mark.parametrize(
    "change",
    [
        {"seed": 2**64 - 1},
        {"seed": -1},
        {"seed": -(2**63)},
        {"step": 2**32 - 1},
        {"tensor": 2**32 - 2},
        {"probe": 2**32 - 1},
    ],
)
@pytest.mark.parametrize("noise", NOISES)
def test_the_ends_of_the_ranges(backend, change, noise):
    place = {**WHERE, **change}
    got = fk.noise((2, 1025), "hardtanh", noise=noise, **place)
    assert_same(got, oracle.noise((2, 1025), "hardtanh", noise, **place))


def test_seed_and_step_may_be_0_dim_int64_tensors(backend):
    place = {**WHERE, "seed": torch.tensor(-2), "step": torch.tensor(7)}
    got = fk.noise((2, 130), "identity", **place)
    want = oracle.noise((2, 130), "identity", **{**WHERE, "seed": 2**64 - 2, "step": 7})
    assert_same(got, want)


def test_every_coordinate_matters(backend):
    """Same-shape tensors, steps and probes get different noise (DESIGN 5.3)."""
    drawn = [fk.noise((2, 64), "identity", **{**WHERE, n: WHERE[n] + 1}) for n in WHERE]
    drawn += [fk.noise((2, 64), "identity", **WHERE), fk.noise((2, 64), "identity", **WHERE)]
    assert_same(drawn[-1], drawn[-2], "the same coordinates")
    for i, a in enumerate(drawn[:-1]):
        for b in drawn[:i]:
            assert (a != b).float().mean() > 0.9


@pytest.mark.parametrize("noise", NOISES)
@given(
    rows=st.integers(1, 5),
    cols=st.integers(1, 200),
    offset=st.integers(0, 40000),
    extra=st.integers(0, 3000),
    data=st.data(),
)
def test_a_shard_is_a_slice_of_the_whole(noise, rows, cols, offset, extra, data):
    pitch = cols + extra
    r = data.draw(st.integers(0, rows - 1))
    c = data.draw(st.integers(0, cols - 1))
    place = {**WHERE, "noise": noise, "row_pitch": pitch}
    whole = fk.noise((rows, cols), "clipped", offset=offset, **place)
    part = fk.noise((rows - r, cols - c), "clipped", offset=offset + r * pitch + c, **place)
    assert_same(part, whole[r:, c:].contiguous())


def test_numpy_out_gives_numpy_back(backend):
    out = np.full((3, 100), np.nan, np.float32)
    got = fk.noise((3, 100), "tanh", **WHERE, out=out)
    assert got is out
    assert_same(got, oracle.noise((3, 100), "tanh", **WHERE))


def test_device_names_where_the_result_goes():
    """A device is no array: taken for one, a GPU's memory would be given to the CPU's kernel."""
    for device in (None, "cpu", torch.device("cpu")):
        got = fk.noise((2, 3), "identity", device=device, **WHERE)
        assert_same(got, oracle.noise((2, 3), "identity", **WHERE))
    assert fk.noise((2, 3), "identity", device="meta", **WHERE).device.type == "meta"


@pytest.mark.gpu
@pytest.mark.parametrize("device", ["cuda", torch.device("cuda")], ids=str)
def test_the_result_is_on_the_named_gpu(device):
    got = fk.noise((3, 129), "tanh", device=device, **WHERE)
    assert got.device.type == "cuda"
    assert_same(got, oracle.noise((3, 129), "tanh", **WHERE))
