"""What the public tests of the estimator's operations do not reach on a CPU: aligned tiles, scalars
in memory, many tensors in one launch."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_same, finite

import fogzo_kernels as fk
from fogzo_kernels import _launch

MID = fk.Grid("mid-rise", 2)
WHERE = {"seed": 2**64 - 3, "step": 2**32 - 1, "gamma": 0.3, "norm": 4.0}
# shape, offset, row_pitch, scale: what lets a program take 16 bytes a lane, and what just fails to
ALIGNED = (
    ((8, 256), 0, None, (8, 1)),
    ((3, 512), 1024, None, (3, 4, 1)),
    ((3, 48), 16, None, (3, 12, 1)),
    ((4, 256), 2048, 512, (4, 1)),
    ((5, 64), 48, 80, ()),
    ((16, 192), 0, None, ()),
    ((6, 264), 8, 272, (6, 1)),
    ((2, 4096), 4, None, (2, 32, 1)),
    ((3, 3, 16), 0, None, (3, 3, 1)),
    ((1, 2048), 3072, None, (1, 1)),  # tiles 3 and 4: two words of a rademacher block
)


def tensors(shape, scale, seed=0):
    rng = np.random.default_rng(seed)
    arrays = finite(rng, shape), finite(rng, shape)
    a = np.float32(0.25) * rng.integers(1, 5, scale).astype(np.float32)
    return *map(torch.from_numpy, arrays), torch.as_tensor(a)


def both(call):
    """What Triton gives and what the reference gives."""
    with fk.use_backend("triton"):
        got = call()
    with fk.use_backend("reference"):
        return got, call()


@pytest.mark.parametrize("view", ALIGNED, ids=str)
@pytest.mark.parametrize("form", ["values", "codes", "packed", "flips"])
def test_aligned_and_nearly_aligned_tensors(view, form):
    shape, offset, pitch, scale = view
    w, g, a = tensors(shape, scale)
    place = {"tensor": 2**32 - 2, "offset": offset, "row_pitch": pitch, "form": form, **WHERE}
    noise = "rademacher" if len(shape) == 3 or offset else "published"
    counts = [torch.zeros(4, dtype=torch.int64) for _ in range(2)]

    def call():
        return fk.perturb_quantize(
            w, g, a, MID, probes=2, noise=noise, flip_count=counts.pop(), **place
        )

    kept = list(counts)
    got, want = both(call)
    assert_same(kept[1], kept[0], "flip_count")
    if form == "flips":
        for name in ("base", "index", "code", "count"):
            assert_same(getattr(got, name), getattr(want, name), name)
    else:
        assert_same(*((x.data if form == "packed" else x) for x in (got, want)))


@pytest.mark.parametrize("view", ALIGNED[::2], ids=str)
def test_assemble_on_aligned_tensors(view):
    shape, offset, pitch, scale = view
    _, g, a = tensors(shape, scale, seed=1)
    d = torch.tensor([0.5, -0.25, 3.0])
    place = {"tensor": 1, "offset": offset, "row_pitch": pitch, **WHERE}
    got, want = both(lambda: fk.assemble_gradient(g, a, d, "clipped", **place))
    assert_same(got, want)
    with fk.use_backend("triton"):
        assert fk.assemble_gradient(g, a, d, "clipped", **place, out=g) is g
    assert_same(g, want, "written over the gradient")


@pytest.mark.parametrize("gamma", [0.0, 1e-9, 0.3, 1 - 1e-9, 1.0])
def test_scalars_in_memory_give_the_bits_of_host_numbers(gamma):
    """0-dim CPU tensors are read by the check; a GPU's by the kernel, which is called here."""
    from fogzo_kernels._check import Draw, View
    from fogzo_kernels.assemble_gradient import triton_kernel as assemble
    from fogzo_kernels.perturb_quantize import triton_kernel as perturb

    w, g, a = tensors((3, 256), (3, 1))
    view = View("torch", "cpu", (3, 256), 3, 256, 3, 1)
    seed, step = torch.tensor(-3), torch.tensor(2**32 - 1)
    scalars = {
        "gamma": torch.tensor(gamma, dtype=torch.float64),
        "norm": torch.tensor(4.0),
        "view": view,
        "draw": Draw("hardtanh", "published", seed, step, 7, 1, 2, 0, 256),
    }
    sign = fk.Grid("sign")
    place = {**WHERE, "tensor": 7, "first_probe": 1, "gamma": gamma}
    with fk.use_backend("reference"):
        want = fk.perturb_quantize(w, g, a, sign, "hardtanh", probes=2, **place)
    got, _ = perturb.perturb_quantize(
        (None, None), False, w=w, grad=g, scale=a, grid=sign, form="values", sides=2,
        capacity=None, shape=(4, 3, 256), **scalars,
    )  # fmt: skip
    assert_same(got, want)
    d = torch.tensor([0.5, 2.0])
    with fk.use_backend("reference"):
        want = fk.assemble_gradient(g, a, d, "hardtanh", **place)
    got = assemble.assemble_gradient(None, grad=g, scale=a, differences=d, **scalars)
    assert_same(got, want)


@pytest.fixture
def launches(monkeypatch):
    """Names of the kernels launched, in order."""
    names = []
    launch = _launch.Kernel.launch

    def counted(self, *args, **named):
        names.append(self.name)
        launch(self, *args, **named)

    monkeypatch.setattr(_launch.Kernel, "launch", counted)
    return names


@pytest.mark.parametrize("count", [1, 2, 3, 5, 8, 9])
def test_many_tensors_are_one_launch_and_equal_the_loop(count, launches):
    rows = [tensors((1 + i % 3, 128 * (1 + i % 4)), (1 + i % 3, 1), seed=i) for i in range(count)]
    ws, gs, scales = (list(column) for column in zip(*rows, strict=True))
    numbers = list(range(10, 10 + count))
    d = torch.tensor([0.5, -1.0])

    def step():
        norm = fk.whitened_norm(gs, scales, "clipped")
        named = {**WHERE, "tensors": numbers, "norm": 2.0}
        packed = fk.perturb_quantize_many(ws, gs, scales, MID, form="packed", probes=2, **named)
        return norm, packed, fk.assemble_gradient_many(gs, scales, d, "clipped", **named)

    got, want = both(step)
    assert launches == [
        "whitened_norm_part", "whitened_norm_total", "perturb_quantize", "assemble_gradient",
    ]  # fmt: skip
    assert abs(got[0] - want[0]) <= 2.0**-23 * want[0]
    for i in range(count):
        assert_same(got[1][i].data, want[1][i].data, f"packed of tensor {i}")
        assert_same(got[2][i], want[2][i], f"gradient of tensor {i}")


@pytest.mark.parametrize("sides", ["both", "plus"])
def test_flips_of_many_tensors_are_two_launches_more(sides, launches):
    """One chunk and several, no element, room to spare, nothing that flips."""
    shapes = ((3, 700), (1, 5), (0, 7), (2, 1024), (4, 128))
    rows = [tensors(shape, (shape[0], 1), seed=i) for i, shape in enumerate(shapes)]
    ws, gs, scales = (list(column) for column in zip(*rows, strict=True))
    gs[-1].zero_()
    named = {**WHERE, "tensors": list(range(5)), "form": "flips", "sides": sides, "gamma": 1e-6}

    def call(**more):
        return fk.perturb_quantize_many(ws, gs, scales, MID, **named, **more)

    got, want = both(call)
    assert len(launches) - launches.count("perturb_quantize") == 2
    assert launches[-2:] == ["count_flips", "find_flips"]
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        for name in ("base", "index", "code", "count"):
            assert_same(getattr(a, name), getattr(b, name), f"{name} of tensor {i}")
    room = [1500, 0, 4, 2500, 3]
    room = [max(n, flips.index.shape[1]) for n, flips in zip(room, got, strict=True)]
    outs = []
    for flips, n in zip(got, room, strict=True):
        index = torch.full((len(flips.count), n), 77)
        outs.append(fk.Flips(flips.base.clone(), index, index.to(torch.uint8), flips.count + 5))
    with fk.use_backend("triton"):
        again = call(outs=outs)
    for i, (out, flips, result) in enumerate(zip(outs, got, again, strict=True)):
        assert result is out
        most = flips.index.shape[1]
        assert_same(out.count, flips.count, f"count of tensor {i}")
        assert_same(out.index[:, :most].contiguous(), flips.index, f"index of tensor {i}")
        assert_same(out.code[:, :most].contiguous(), flips.code, f"code of tensor {i}")
        assert (out.index[:, most:] == -1).all()
        assert (out.code[:, most:] == 0).all()


def test_many_kinds_of_tensors_at_once():
    """Grids, surrogates, scales, alignments and sizes that do not share a launch."""
    kinds = (
        ((4, 128), (4, 1), fk.Grid("sign"), "tanh"),
        ((0, 128), (0, 1), MID, "clipped"),
        ((3, 43), (3, 43, 1), fk.Grid("ternary"), "identity"),
        ((2, 2, 4), (), MID, "trust"),
        ((130,), (), None, "identity"),
        ((4, 128), (4, 1), fk.Grid("sign"), "tanh"),
    )
    rows = [tensors(shape, scale, seed=i) for i, (shape, scale, _, _) in enumerate(kinds)]
    ws, gs, scales = (list(column) for column in zip(*rows, strict=True))
    grids, surrogates = [k[2] for k in kinds], [k[3] for k in kinds]
    counts = [torch.full((len(kinds), 2), -1) for _ in range(2)]

    def call():
        return fk.perturb_quantize_many(
            ws, gs, scales, grids, surrogates, tensors=[3, 1, 4, 1, 5, 9],
            offsets=[0, 1, 5, 16, 2, 128], flip_counts=counts.pop(), **WHERE,
        )  # fmt: skip

    kept = list(counts)
    got, want = both(call)
    assert_same(kept[1], kept[0], "flip_counts")
    for i, (a, b) in enumerate(zip(got, want, strict=True)):
        assert_same(a, b, f"tensor {i}")


def test_flips_need_room_for_all():
    w, g, a = tensors((4, 128), (4, 1))
    with fk.use_backend("triton"):
        flips = fk.perturb_quantize(w, g, a, MID, form="flips", tensor=0, **WHERE)
        room = flips.index.shape[1] - 1
        small = fk.Flips(
            flips.base, torch.empty(2, room, dtype=torch.int64),
            torch.empty(2, room, dtype=torch.uint8), torch.empty(2, dtype=torch.int64),
        )  # fmt: skip
        with pytest.raises(ValueError, match=f"out has room for {room} flips, expected {room + 1}"):
            fk.perturb_quantize(w, g, a, MID, form="flips", tensor=0, **WHERE, out=small)
