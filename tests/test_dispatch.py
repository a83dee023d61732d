"""Which backend runs a call: the fixed order, refusals with their reasons, nesting."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from helpers import assert_same, finite

import fogzo_kernels as fk
from fogzo_kernels import _array, _dispatch

WHERE = {"seed": 1, "step": 0, "tensor": 0}
NOT_OPS = {
    "Flips", "Grid", "Packed", "backends", "capabilities", "has_kernel", "radius",
    "use_backend", "why_not",
}  # fmt: skip


def test_every_public_operation_is_dispatched():
    assert set(_dispatch.OPS) == set(fk.__all__) - NOT_OPS


def test_capabilities_answer_for_every_operation_and_backend():
    table = fk.capabilities()
    assert set(table) == set(_dispatch.OPS)
    for row in table.values():
        assert tuple(row) == ("cuda", "triton", "cpu", "reference")
        for name, reason in row.items():
            assert reason is None or (isinstance(reason, str) and reason)
            if fk.why_not(name) is not None:
                assert reason == fk.why_not(name)
        assert row["reference"] is None


def test_backends_are_those_without_a_reason():
    assert fk.backends() == tuple(
        name for name in ("cuda", "triton", "cpu", "reference") if fk.why_not(name) is None
    )


def test_a_named_backend_that_refuses_raises_its_reason():
    for name in ("cuda", "triton", "cpu"):
        reason = fk.capabilities()["compute_scale"][name]
        if reason is None:
            continue
        with fk.use_backend(name), pytest.raises(RuntimeError) as caught:
            fk.compute_scale(torch.ones(2, 4), fk.Grid("sign"))
        text = f"compute_scale: no backend takes this call: {name}: "
        assert str(caught.value).startswith(text)


def test_use_backend_nests_and_ends_with_an_error():
    assert _dispatch.forced() == "auto"
    with fk.use_backend("reference"):
        with fk.use_backend("auto"):
            assert _dispatch.forced() == "auto"
        assert _dispatch.forced() == "reference"
        with pytest.raises(KeyError), fk.use_backend("cpu"):
            raise KeyError
        assert _dispatch.forced() == "reference"
    assert _dispatch.forced() == "auto"


@pytest.mark.parametrize("call", [fk.why_not, lambda name: fk.use_backend(name).__enter__()])
def test_unknown_names(call):
    with pytest.raises(ValueError, match=r"is 'gpu', expected one of cuda, triton, cpu, reference"):
        call("gpu")


def test_auto_takes_a_call_that_the_native_module_refuses():
    """Flips, or whatever it lacks: the answer is the reference's."""
    w = torch.linspace(-1, 1, 300).reshape(2, 150)
    named = {"gamma": 0.5, "norm": 1.0, "form": "flips", **WHERE}
    got = fk.perturb_quantize(w, w, torch.tensor(0.5), fk.Grid("ternary"), **named)
    with fk.use_backend("reference"):
        want = fk.perturb_quantize(w, w, torch.tensor(0.5), fk.Grid("ternary"), **named)
    for name in ("base", "count", "index", "code"):
        assert_same(getattr(got, name), getattr(want, name), name)


def test_operations_leave_no_graph_behind():
    w = torch.ones(2, 4, requires_grad=True)
    got = fk.fake_quantize(w, torch.tensor(0.5), fk.Grid("ternary"))
    assert not got.requires_grad


def test_read_only_and_strided_numpy_arrays_are_read():
    w = np.linspace(-2, 2, 40, dtype=np.float32).reshape(4, 10)
    w.flags.writeable = False
    scale = np.asarray(np.float32(0.5))
    want = fk.fake_quantize(w.copy(), scale, fk.Grid("ternary"))
    assert_same(fk.fake_quantize(w, scale, fk.Grid("ternary")), want)
    backwards = fk.fake_quantize(w[::-1, ::-1], scale, fk.Grid("ternary"))
    assert_same(backwards, np.ascontiguousarray(want[::-1, ::-1]))


def unaligned(array):
    """The same numbers one byte off the alignment of their type."""
    raw = np.zeros(array.nbytes + 1, np.uint8)[1:]
    copy = raw.view(array.dtype).reshape(array.shape)
    copy[...] = array
    assert copy.flags.aligned == (array.itemsize == 1)
    return copy


def apart(array):
    """The same numbers with a hole after each."""
    wide = np.full((*array.shape, 2), 77, array.dtype)
    wide[..., 0] = array
    return wide[..., 0]


@pytest.mark.parametrize("kind", ["torch", "numpy"])
@pytest.mark.parametrize("change", [unaligned, apart])
def test_inputs_with_other_strides_or_alignment_give_the_same_bits(backend, change, kind):
    rng = np.random.default_rng(2)
    grid = fk.Grid("mid-rise", 2)
    w, grad, x = finite(rng, (4, 44)), finite(rng, (4, 44)), finite(rng, (3, 44))
    a, d = np.full((4, 1), 0.4, np.float32), finite(rng, (2,))
    codes = rng.integers(0, 4, (4, 44)).astype(np.uint8)
    named = {"gamma": 0.3, "norm": 2.0, **WHERE}
    calls = {
        "fake_quantize": lambda w, a: fk.fake_quantize(w, a, grid),
        "fake_quantize_backward": lambda g, w, a: fk.fake_quantize_backward(g, w, a, grid)[0],
        "quantize": lambda w, a: fk.quantize(w, a, grid),
        "dequantize": lambda codes, a: fk.dequantize(codes, a, grid),
        "pack": lambda codes: fk.pack(codes, 2).data,
        "unpack": lambda codes: fk.unpack(fk.Packed(codes, 2, (4, 176))),
        "whitened_norm": lambda g, a: fk.whitened_norm([g], [a], "clipped"),
        "perturb_quantize": lambda w, g, a: fk.perturb_quantize(w, g, a, grid, **named),
        "assemble_gradient": lambda g, a, d: fk.assemble_gradient(g, a, d, "clipped", **named),
        "hadamard": lambda w: fk.hadamard(w),
        "compute_scale": lambda w: fk.compute_scale(w, grid),
        "hadamard_quantize": lambda w: fk.hadamard_quantize(w, grid)[0],
        "probe_matmul": lambda x, codes, a: fk.probe_matmul(x, codes, a, grid),
    }
    arrays = {"w": w, "g": grad, "a": a, "d": d, "codes": codes, "x": x}
    for op, call in calls.items():
        if fk.capabilities()[op][backend] is not None:
            continue
        given = [arrays[name] for name in call.__code__.co_varnames[: call.__code__.co_argcount]]
        if change is unaligned and kind == "torch":
            continue
        changed = [change(array) for array in given]
        if kind == "torch":
            given, changed = map(torch.from_numpy, given), map(torch.from_numpy, changed)
        try:
            got = call(*changed)
        except RuntimeError as error:
            assert "no backend takes this call" in str(error)  # noqa: PT017
            continue
        assert_same(got, call(*given), op)


def test_unaligned_memory_is_copied():
    array = unaligned(np.arange(6, dtype=np.float32).reshape(2, 3))
    copy = _array.contiguous(array)
    assert copy.flags.aligned
    assert_same(copy, np.arange(6, dtype=np.float32).reshape(2, 3))
    with pytest.raises(ValueError, match="out is at an address that is no multiple of 4 bytes"):
        fk.noise((2, 3), "identity", **WHERE, out=array)


def test_reference_results_are_row_major():
    """torch keeps the order of a transposed input; what comes out is dense on every backend."""
    w = torch.linspace(-2, 2, 12).reshape(4, 3).t()
    grid = fk.Grid("mid-rise", 2)
    scale = torch.tensor(0.5)
    with fk.use_backend("reference"):
        results = (
            fk.quantize(w, scale, grid),
            fk.fake_quantize(w, scale, grid),
            fk.fake_quantize_backward(w, w, scale, grid)[0],
        )
    for result in results:
        assert result.is_contiguous()


def test_has_kernel_follows_the_chosen_backend():
    native = fk.why_not("cpu") is None
    assert fk.has_kernel("probe_matmul") == native
    with fk.use_backend("reference"):
        assert not fk.has_kernel("probe_matmul")
    with fk.use_backend("cpu"):
        assert fk.has_kernel("probe_matmul") == native
    assert fk.has_kernel("compute_scale") == native
    assert not fk.has_kernel("probe_matmul", "meta")
    with pytest.raises(ValueError, match="has_kernel: op is 'matmul', expected one of"):
        fk.has_kernel("matmul")
