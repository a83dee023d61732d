"""Bad outputs: the exact text (op: argument got, expected), and every output as it was."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from op_calls import ARRAY, OPS, OUTS, SHAPE, U8, assemble_many, perturb, refuse, scale, weight

import fogzo_kernels as fk


@pytest.mark.parametrize("op", OUTS)
def test_outputs(op):
    dtype, shape = OUTS[op]
    name = str(dtype).removeprefix("torch.")
    wrong = torch.zeros(shape, dtype=torch.float64)
    refuse(op, f"out has dtype float64, expected {name}", TypeError, out=wrong)
    wrong = torch.zeros((7, *shape), dtype=dtype)
    refuse(op, f"out has shape {tuple(wrong.shape)}, expected {shape}", out=wrong)
    refuse(op, f"out is a list, expected {ARRAY}", TypeError, out=[])
    if shape:
        strided = torch.zeros((*shape, 2), dtype=dtype)[..., 0]
        refuse(op, "out is not contiguous, expected a contiguous array", out=strided)
        assert not strided.any()


def test_read_only_output():
    out = np.zeros(SHAPE, np.float32)
    out.flags.writeable = False
    refuse("noise", "out is read-only, expected a writable array", out=out)


INPUTS = [
    (op, name)
    for op, names in {
        "compute_scale": "w", "quantize": "w scale", "dequantize": "codes scale",
        "fake_quantize": "w scale", "fake_quantize_backward": "grad w scale", "hadamard": "x",
        "perturb_quantize": "w grad scale", "assemble_gradient": "grad scale differences",
        "whitened_norm": "grads[0] scales[0]", "probe_matmul": "x codes scale bias",
    }.items()
    for name in names.split()
]  # fmt: skip


@pytest.mark.parametrize(("op", "name"), INPUTS)
def test_overlap_that_is_refused(op, name):
    plain = {
        "scale": scale(), "scales[0]": scale(), "codes": torch.zeros(SHAPE, dtype=U8),
        "differences": torch.ones(1), "bias": torch.ones(4),
        "x": weight((3, 12) if op == "probe_matmul" else SHAPE),
    }.get(name, weight())  # fmt: skip
    memory = torch.zeros(4096, dtype=U8)
    dtype, shape = OUTS[op]
    end = 64 + plain.nbytes
    array = memory[64:end].view(plain.dtype).view(plain.shape).copy_(plain)
    first = end - 4 if plain.nbytes > 4 else 64  # its last bytes
    out = memory[first : first + math.prod(shape) * dtype.itemsize].view(dtype).view(shape)
    before = memory.clone()
    argument, listed, _ = name.partition("[")
    text = f"out overlaps {name} in memory, expected memory apart from {name}"
    refuse(op, text, **{argument: [array] if listed else array, "out": out})
    assert torch.equal(memory, before)


@pytest.mark.parametrize(("op", "argument"), [("fake_quantize", "w"), ("assemble_gradient", "grad"),
                                              ("hadamard", "x")])  # fmt: skip
def test_the_input_itself_may_be_the_output_but_no_part_of_it(op, argument):
    memory = torch.zeros(200)
    array = memory[:48].view(SHAPE).copy_(weight())
    got = OPS[op](**{argument: array, "out": array})
    assert got is array
    shifted = memory[4:52].view(SHAPE)
    text = f"out overlaps {argument} in memory, expected memory apart from {argument}"
    refuse(op, text, **{argument: array, "out": shifted})


@pytest.mark.parametrize("op", ["quantize", "fake_quantize", "fake_quantize_backward",
                                "perturb_quantize", "assemble_gradient"])  # fmt: skip
@pytest.mark.parametrize("backend", ["reference", "cpu"])
def test_outputs_are_untouched_after_an_error(op, backend):
    if (reason := fk.why_not(backend) or fk.capabilities()[op][backend]) is not None:
        pytest.skip(reason)
    dtype, shape = OUTS[op]
    out = torch.full(shape, 165, dtype=dtype)
    changes = {"scale": scale([1.0], [1.0], [0.0], [1.0]), "out": out}
    if op == "fake_quantize_backward":
        changes["needs_scale_grad"] = False
    with fk.use_backend(backend), pytest.raises(ValueError, match="scale has"):
        OPS[op](**changes)
    assert (out == 165).all()


def test_flip_counts():
    count = torch.zeros(2, dtype=torch.int32)
    text = "flip_count has dtype int32, expected int64"
    refuse("perturb_quantize", text, TypeError, flip_count=count)
    text = "flip_count has shape (3,), expected (2,)"
    refuse("perturb_quantize", text, flip_count=torch.zeros(3, dtype=torch.int64))
    text = "flip_count is given with grid None, expected None, as nothing is rounded"
    count = torch.zeros(2, dtype=torch.int64)
    refuse("perturb_quantize", text, grid=None, flip_count=count)


def test_packed_and_flips_outputs():
    text = "out is a Tensor, expected a fogzo_kernels.Packed"
    refuse("perturb_quantize", text, TypeError, form="packed", out=torch.zeros(2))
    text = "out is a Tensor, expected a fogzo_kernels.Flips"
    refuse("perturb_quantize", text, TypeError, form="flips", out=torch.zeros(2))
    data = torch.zeros(2, 4, 6, dtype=U8)
    text = f"out has bits 4 and shape {(2, *SHAPE)}, expected 2 and {(2, *SHAPE)}"
    refuse("perturb_quantize", text, form="packed", out=fk.Packed(data, 4, (2, *SHAPE)))
    few = fk.Flips(
        torch.zeros(SHAPE, dtype=U8), torch.zeros(2, 1, dtype=torch.int64),
        torch.zeros(2, 1, dtype=U8), torch.full((2,), -9),
    )  # fmt: skip
    with pytest.raises(ValueError, match="^perturb_quantize: out"):
        perturb(form="flips", out=few, gamma=1.0)
    assert few.count.tolist() == [-9, -9]


def test_outputs_of_a_list_are_apart_from_each_other_and_from_foreign_inputs():
    """Each may be its own gradient, but not another's: entries are written in any order."""
    g = [weight(), weight() * 2]
    kept = [one.clone() for one in g]
    op = "assemble_gradient_many"
    text = "{0} overlaps {1} in memory, expected memory apart from {1}"
    refuse(op, text.format("outs[0]", "grads[1]"), grads=g, outs=[g[1], g[0]])
    refuse(op, text.format("outs[0]", "grads[1]"), grads=g, outs=[g[1], None])
    out = torch.full(SHAPE, 165.0)
    refuse(op, text.format("outs[1]", "outs[0]"), grads=g, outs=[out, out])
    assert (out == 165).all()
    assert all(torch.equal(one, other) for one, other in zip(g, kept, strict=True))
    assert assemble_many(grads=g, outs=g)[1] is g[1]
    memory = torch.zeros(4 * 48)
    views = [memory[48 * i : 48 * i + 96].view(2, *SHAPE) for i in range(2)]
    op = "perturb_quantize_many"
    refuse(op, text.format("outs[1]", "outs[0]"), outs=views)
    count = views[0].view(torch.int64).view(-1)[:4].view(2, 2)
    text_of_count = text.format("outs[0]", "flip_counts")
    refuse(op, text_of_count, flip_counts=count, outs=[views[0], None])
    refuse(op, "flip_counts has shape (2, 3), expected (2, 2)",
           flip_counts=torch.zeros(2, 3, dtype=torch.int64))  # fmt: skip
    bytes_of = [torch.zeros(2, 4, 3, dtype=U8) for _ in range(2)]
    ws = [weight(), bytes_of[0].view(-1)[:24].view(torch.float32).view(1, 6)]
    packed = [fk.Packed(bytes_of[0], 2, (2, *SHAPE)), None]
    refuse(op, text.format("outs[0].data", "ws[1]"), ws=ws, grads=[weight(), torch.ones(1, 6)],
           form="packed", outs=packed)  # fmt: skip
