"""What autograd sees of an output that the caller gives: as torch's own ``out=``."""

from __future__ import annotations

import pytest
import torch
from op_calls import OPS, OUTS, SHAPE, U8, refuse, weight

import fogzo_kernels as fk


@pytest.mark.parametrize("op", [op for op in OUTS if OUTS[op][0].is_floating_point])
def test_an_output_that_requires_grad(op):
    dtype, shape = OUTS[op]
    out = torch.zeros(shape, dtype=dtype, requires_grad=True)
    text = "out requires grad, expected a tensor that does not, or torch.no_grad()"
    refuse(op, text, out=out)
    assert not out.any()
    with torch.no_grad():
        OPS[op](out=out)
    assert out._version > 0


def outputs():
    """An operation, its outputs and the arrays in them, for every way to give some."""
    for op, (dtype, shape) in OUTS.items():
        out = torch.zeros(shape, dtype=dtype)
        yield op, {"out": out}, [out]
    pair = torch.zeros(SHAPE), torch.zeros(4, 1)
    yield "hadamard_quantize", {"out": pair}, pair
    data, counts = torch.zeros(4, 3, dtype=U8), torch.zeros(2, 2, dtype=torch.int64)
    yield "pack", {"out": fk.Packed(data, 2, SHAPE)}, [data]
    parts = (
        torch.zeros(SHAPE, dtype=U8), torch.zeros(2, 99, dtype=torch.int64),
        torch.zeros(2, 99, dtype=U8), torch.zeros(2, dtype=torch.int64),
    )  # fmt: skip
    yield "perturb_quantize", {"form": "flips", "out": fk.Flips(*parts)}, parts
    listed = [torch.zeros(2, *SHAPE), torch.zeros(2, *SHAPE)]
    yield "perturb_quantize_many", {"outs": listed, "flip_counts": counts}, [*listed, counts]
    grads = [weight(), weight()]
    yield "assemble_gradient_many", {"grads": grads, "outs": grads}, grads


@pytest.mark.parametrize(("op", "given", "arrays"), [*outputs()])
def test_a_write_is_a_new_version(op, given, arrays):
    before = [array._version for array in arrays]
    OPS[op](**given)
    assert all(a._version > v for a, v in zip(arrays, before, strict=True))


def test_a_saved_tensor_that_was_written_is_not_used():
    saved, p = torch.zeros(SHAPE), torch.ones(SHAPE, requires_grad=True)
    y = (saved * p).sum()
    OPS["fake_quantize"](out=saved)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        y.backward()


def test_tensors_of_inference_mode_have_no_version():
    with torch.inference_mode():
        out = torch.zeros(SHAPE)
        assert OPS["fake_quantize"](out=out) is out
