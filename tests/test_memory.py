"""Memory that a kernel must not take as it comes: strides, alignment, overlaps, sizes."""

from __future__ import annotations

import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from helpers import as_numpy, assert_same

import fogzo_kernels as fk
from fogzo_kernels import _array

GRID = fk.Grid("mid-rise", 2)
WHERE: dict[str, Any] = {"seed": 3, "step": 1, "tensor": 0}
GUIDED: dict[str, Any] = {**WHERE, "gamma": 0.5, "norm": 2.0}
DIFFERENCES = torch.tensor([0.5, -0.25])


def strange(array: torch.Tensor, how: str) -> Any:
    """The same numbers in memory of another kind."""
    numbers = array.numpy()
    if how == "negative strides":
        flipped: Any = np.flip(np.flip(numbers).copy())
        return flipped
    if how == "odd address":
        raw = np.zeros(numbers.nbytes + 1, np.uint8)
        view = raw[1:].view(numbers.dtype).reshape(numbers.shape)
        view[...] = numbers
        return view
    if how == "a field of records":
        records = np.zeros(numbers.shape, np.dtype([("tag", "u1"), ("x", numbers.dtype)]))
        records["x"] = numbers
        return records["x"]
    if how == "read-only":
        numbers = numbers.copy()
        numbers.flags.writeable = False
        return numbers
    if how == "a torch tensor at an odd address":
        raw = bytearray(1) + bytearray(numbers.tobytes())
        flat = torch.frombuffer(raw, dtype=array.dtype, offset=1, count=array.numel())
        return flat.reshape(array.shape)
    if how == "a lazy negation":
        return torch._neg_view(-array)
    if how == "transposed":
        return array.T.contiguous().T
    wide = torch.zeros(*(3 * n for n in array.shape), dtype=array.dtype)
    view = wide[tuple(slice(1, 3 * n, 3) for n in array.shape)]
    return view.copy_(array)


def numbers(array: Any) -> Any:
    return as_numpy(array.resolve_neg() if isinstance(array, torch.Tensor) else array)


HOWS = (
    "negative strides",
    "odd address",
    "a field of records",
    "read-only",
    "a torch tensor at an odd address",
    "a lazy negation",
    "transposed",
    "steps of three",
)


def flips(codes: Any) -> fk.Flips:
    """Two sides that differ from the codes in the last of them, where there is one."""
    sides = (2, 1 if math.prod(codes.shape) else 0)
    parts = (np.full(sides, math.prod(codes.shape) - 1), np.full(sides, 3, np.uint8))
    counts = np.full(2, sides[1])
    if isinstance(codes, np.ndarray):
        return fk.Flips(codes, *parts, counts)
    return fk.Flips(codes, *map(torch.from_numpy, (*parts, counts)))


OPERATIONS: dict[str, Any] = {
    "quantize": lambda w, g, a, c: fk.quantize(w, a, GRID),
    "fake_quantize": lambda w, g, a, c: fk.fake_quantize(w, a, GRID),
    "fake_quantize_backward": lambda w, g, a, c: fk.fake_quantize_backward(g, w, a, GRID)[0],
    "dequantize": lambda w, g, a, c: fk.dequantize(c, a, GRID),
    "pack": lambda w, g, a, c: fk.pack(c, 2).data,
    "whitened_norm": lambda w, g, a, c: fk.whitened_norm([g, w], [a, a], "clipped"),
    "perturb_quantize": lambda w, g, a, c: fk.perturb_quantize(w, g, a, GRID, **GUIDED),
    "assemble_gradient": lambda w, g, a, c: fk.assemble_gradient(
        g, a, DIFFERENCES.numpy() if isinstance(g, np.ndarray) else DIFFERENCES, "clipped",
        **GUIDED,
    ),
    "probe_matmul": lambda w, g, a, c: fk.probe_matmul(g, c, a, GRID),
    "probe_matmul_flips": lambda w, g, a, c: fk.probe_matmul(g, flips(c), a, GRID),
    "hadamard": lambda w, g, a, c: fk.hadamard(w, 16),
    "hadamard_quantize": lambda w, g, a, c: fk.hadamard_quantize(w, GRID)[0],
    "quantize_activation": lambda w, g, a, c: fk.quantize_activation(w)[0],
    "compute_scale": lambda w, g, a, c: fk.compute_scale(w, GRID),
}  # fmt: skip


@pytest.mark.parametrize("how", HOWS)
@pytest.mark.parametrize("op", OPERATIONS)
def test_inputs_may_lie_anywhere(op, how, backend):
    torch.manual_seed(0)
    w, g, a = torch.randn(5, 37), torch.randn(5, 37), torch.rand(5, 1) + 0.5
    codes = torch.randint(0, 4, (5, 37), dtype=torch.uint8)
    inputs = (w, g, a, codes)
    if how == "a lazy negation":
        inputs = (*(strange(t, how) for t in inputs[:3]), codes)
    else:
        inputs = tuple(strange(t, how) for t in inputs)
    before = [numbers(t).copy() for t in inputs]
    try:
        got, want = OPERATIONS[op](*inputs), OPERATIONS[op](w, g, a, codes)
    except RuntimeError as error:
        assert "no backend takes this call" in str(error)  # noqa: PT017
        pytest.skip(str(error))
    if op.startswith("probe_matmul") and backend == "reference":
        # torch's matmul may sum 37 products in another order: 37 roundings in each of the two
        size = g.abs() @ fk.dequantize(codes, a, GRID).abs().T
        assert (abs(as_numpy(got) - as_numpy(want)) <= 2 * 37 * 2.0**-24 * as_numpy(size)).all()
    else:
        assert_same(got, want)
    for array, old in zip(inputs, before, strict=True):
        assert_same(numbers(array), old, "input")


@pytest.mark.parametrize("how", ["odd address", "a torch tensor at an odd address"])
def test_a_kernel_never_sees_an_odd_address(how):
    array = strange(torch.randn(3, 5), how)
    copy = _array.contiguous(array)
    assert _array.pointer(array) % 4
    assert _array.pointer(copy) % 4 == 0
    assert_same(copy, array)


@pytest.mark.parametrize(
    ("how", "text"),
    [
        ("negative strides", "is not contiguous"),
        ("odd address", "is at an address that is no multiple of 4 bytes"),
        ("a field of records", "is not contiguous"),
        ("read-only", "is read-only"),
        ("a torch tensor at an odd address", "is at an address that is no multiple of 4 bytes"),
        ("a lazy negation", "is a lazy negation"),
        ("transposed", "is not contiguous"),
    ],
)
def test_outputs_must_be_plain(how, text):
    out = strange(torch.full((3, 5), 7.0), how)
    w = torch.zeros(3, 5) if isinstance(out, torch.Tensor) else np.zeros((3, 5), np.float32)
    scale = torch.ones(()) if isinstance(out, torch.Tensor) else np.ones((), np.float32)
    with pytest.raises(ValueError, match=rf"^fake_quantize: out {text}, expected"):
        fk.fake_quantize(w, scale, GRID, out=out)
    assert (numbers(out) == 7).all()


def test_an_expanded_output_is_refused():
    with pytest.raises(ValueError, match=r"^fake_quantize: out is not contiguous"):
        fk.fake_quantize(torch.ones(3, 5), torch.ones(()), GRID, out=torch.ones(1, 5).expand(3, 5))


def slices(*ranges: tuple[int, int]) -> list[torch.Tensor]:
    memory = torch.ones(100)
    return [memory[low:high].view(1, -1) for low, high in ranges]


ONE = torch.ones(())
MANY: dict[str, Any] = {**GUIDED, "tensors": [0, 1]}
MANY.pop("tensor")


@pytest.mark.parametrize(
    ("outs", "text"),
    [
        (((0, 8), (7, 15)), r"outs\[1\] overlaps outs\[0\]"),
        (((0, 8), (24, 32)), r"outs\[1\] overlaps grads\[0\]"),
        (((36, 44), (50, 58)), r"outs\[0\] overlaps grads\[1\]"),
    ],
)
def test_outputs_of_many_lie_apart(outs, text, backend):
    g0, g1, *outs = slices((20, 28), (40, 48), *outs)
    with pytest.raises(ValueError, match=rf"^assemble_gradient_many: {text} in memory, expected"):
        fk.assemble_gradient_many([g0, g1], [ONE, ONE], DIFFERENCES, "clipped", outs=outs, **MANY)
    assert all((t == 1).all() for t in (g0, g1, *outs))


def test_gradients_of_many_may_be_overwritten(backend):
    grads = slices((20, 28), (28, 36))
    want = fk.assemble_gradient_many(grads, [ONE, ONE], DIFFERENCES, "clipped", **MANY)
    fk.assemble_gradient_many(grads, [ONE, ONE], DIFFERENCES, "clipped", outs=grads, **MANY)
    for got, wanted in zip(grads, want, strict=True):
        assert_same(got, wanted)


def test_perturbed_outputs_of_many_lie_apart(backend):
    w0, w1 = slices((20, 28), (40, 48))
    memory = torch.full((48,), 9.0)
    outs = [memory[0:16].view(2, 1, 8), memory[8:24].view(2, 1, 8)]
    arguments = ([w0, w1], [w0, w1], [ONE, ONE], GRID)
    with pytest.raises(ValueError, match=r"outs\[1\] overlaps outs\[0\] in memory"):
        fk.perturb_quantize_many(*arguments, outs=outs, **MANY)
    counts = memory[8:16].view(torch.int64).view(2, 2)
    with pytest.raises(ValueError, match=r"flip_counts overlaps outs\[0\] in memory"):
        fk.perturb_quantize_many(*arguments, flip_counts=counts, outs=[outs[0], None], **MANY)
    assert (memory == 9).all()


def test_counts_of_many_lie_apart_from_inputs(backend):
    w = torch.ones(2, 8)
    counts = w[0].view(torch.int64).view(2, 2)
    arguments = ([torch.ones(1, 8), w[:1]], [torch.ones(1, 8)] * 2, [ONE, ONE], GRID)
    with pytest.raises(ValueError, match=r"flip_counts overlaps ws\[1\] in memory"):
        fk.perturb_quantize_many(*arguments, flip_counts=counts, **MANY)
    assert (w == 1).all()


def test_an_output_and_its_counts_lie_apart(backend):
    memory = np.full(64, 9, np.uint8)
    w, one = np.ones((1, 8), np.float32), np.ones((), np.float32)
    out, counts = memory[:16].reshape(2, 1, 8), memory[8:24].view(np.int64)
    with pytest.raises(ValueError, match=r"flip_count overlaps out in memory"):
        fk.perturb_quantize(w, w, one, GRID, form="codes", out=out, flip_count=counts, **GUIDED)
    assert (memory == 9).all()


def test_a_norm_may_not_be_written_into_a_gradient(backend):
    (g,) = slices((0, 8))
    with pytest.raises(ValueError, match=r"^whitened_norm: out overlaps grads\[0\] in memory"):
        fk.whitened_norm([g], [ONE], "clipped", out=g[0, 3])


def test_random_calls_with_arrays_of_any_kind():
    if fk.why_not("cpu") is not None:
        pytest.skip("the native module is not built")
    tool = Path(__file__).resolve().parent / "tools/fuzz_ops.py"
    command = [sys.executable, tool, "--cases", "300", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "300 calls" in done.stdout


HUGE = 2**35
REFUSE_NOTHING = ("compute_scale", "hadamard_quantize")  # a scale of no elements is no number


@pytest.mark.parametrize("shape", [(0,), (0, 7), (7, 0), (3, 0, 5), (HUGE, 0), (0, HUGE)], ids=str)
@pytest.mark.parametrize("op", [name for name in OPERATIONS if name not in REFUSE_NOTHING])
def test_no_elements_in_any_dimension(op, shape, backend):
    if op.startswith("probe_matmul") and (len(shape) != 2 or HUGE in shape):
        pytest.skip("its result has elements, or x no rows")
    if op == "quantize_activation" and shape[-1] == 0 and HUGE in shape:
        pytest.skip("its scales have elements")
    w = torch.empty(shape)
    got = OPERATIONS[op](w, w, ONE, w.to(torch.uint8))
    if op == "whitened_norm":
        assert got.item() == 0.0
    elif op == "perturb_quantize":
        assert got.shape == (2, *shape)
    elif op.startswith("probe_matmul"):
        assert got.shape == (2 if op.endswith("flips") else 1, shape[0], shape[0])
        assert (got == 0).all()
    else:
        assert got.numel() == 0


@pytest.mark.parametrize("shape", [(0, 7), (7, 0)], ids=str)
@pytest.mark.parametrize("one_scale", [True, False])
def test_the_gradient_of_scales_that_have_no_element_is_zero(shape, one_scale, backend):
    w = torch.empty(shape)
    scale = ONE if one_scale else torch.ones(shape[0], 1)
    _, grad_scale = fk.fake_quantize_backward(w, w, scale, GRID, "clipped")
    assert_same(grad_scale, torch.zeros(scale.shape))


def test_sizes_past_32_bits_without_the_memory():
    """Views of one number: too many elements are refused before anything is read or allocated."""
    w = torch.ones(1, 1).expand(2**20, 2**16)
    with pytest.raises(ValueError, match=r"quantize: w has 68719476736 elements, expected at most"):
        fk.quantize(w, ONE, GRID)
    with pytest.raises(ValueError, match=r"hadamard: x has \d+ elements, expected at most 2\^35"):
        fk.hadamard(w)
    with pytest.raises(ValueError, match=r"quantize: w has shape .* dimensions of at most 2\^35"):
        fk.quantize(torch.empty(2**36, 0), ONE, GRID)
    x = torch.empty(2**32, 0)
    with pytest.raises(ValueError, match=r"probe_matmul: x has shape .* fewer than 2\^60"):
        fk.probe_matmul(x, torch.empty(2**32, 0, dtype=torch.uint8), ONE, GRID)
    w = torch.ones(1, 1).expand(2**20, 2**14)
    with pytest.raises(ValueError, match=r"perturb_quantize: probes is 4294967295, expected"):
        fk.perturb_quantize(w, w, ONE, GRID, probes=2**32 - 1, **GUIDED)


@pytest.mark.parametrize("offset", [2**31 - 3, 2**32 - 3, 2**34])
@pytest.mark.parametrize("pitch", [5, 2**31 + 1, 2**32 + 3])
def test_element_numbers_past_32_bits(offset, pitch, backend):
    """Each row alone has the element numbers that the rows have together."""
    where = {**WHERE, "noise": "published"}
    u = fk.noise((3, 5), "hardtanh", offset=offset, row_pitch=pitch, **where)
    for r in range(3):
        row = fk.noise((5,), "hardtanh", offset=offset + r * pitch, **where)
        assert_same(u[r], row)
    assert len({tuple(r.tolist()) for r in u}) == 3
    w, g = torch.randn(3, 5), torch.randn(3, 5)
    values = fk.perturb_quantize(w, g, ONE, GRID, offset=offset, row_pitch=pitch, **GUIDED)
    for r in range(3):
        at = offset + r * pitch
        row = fk.perturb_quantize(w[r], g[r], ONE, GRID, offset=at, **GUIDED)
        assert_same(values[:, r], row)
    assert math.isfinite(float(values.sum()))
