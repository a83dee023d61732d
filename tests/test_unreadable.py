"""Tensors whose memory no kernel reads, and arguments of a wrong kind: each is named."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_calls import ARRAY, OUTS, SHAPE, U8, matmul, pack, perturb, refuse, scale, weight
from torch._subclasses.fake_tensor import FakeTensorMode

import fogzo_kernels as fk

NO_MEMORY = "has no memory of its own, expected a tensor that has"


class Wrapper(torch.Tensor):
    """Holds another tensor and has no storage, as DTensor does."""

    @staticmethod
    def __new__(cls, held):
        return torch.Tensor._make_wrapper_subclass(cls, held.shape, dtype=held.dtype)

    __torch_dispatch__ = classmethod(lambda cls, function, *args: NotImplemented)


class Freed(torch.Tensor):
    """A tensor whose storage has been resized to 0, as sharding does; torch cannot print one."""

    def __repr__(self, **_):
        return "Freed()"


def freed(tensor):
    tensor = tensor.clone().as_subclass(Freed)
    tensor.untyped_storage().resize_(0)
    return tensor


def fake(tensor):
    return FakeTensorMode().from_tensor(tensor)


def nested(_):
    return torch.nested.nested_tensor([torch.ones(2), torch.ones(3)])


def codes():
    return torch.zeros(SHAPE, dtype=U8)


INPUTS = [
    (op, name, value)
    for op, given in {
        "compute_scale": {"w": weight}, "quantize": {"w": weight, "scale": scale},
        "dequantize": {"codes": codes, "scale": scale}, "pack": {"codes": codes},
        "fake_quantize": {"w": weight, "scale": scale},
        "fake_quantize_backward": {"grad": weight, "w": weight, "scale": scale},
        "whitened_norm": {"grads[0]": weight, "scales[0]": scale},
        "perturb_quantize": {"w": weight, "grad": weight, "scale": scale, "norm": scale},
        "perturb_quantize_many": {"ws[1]": weight, "grads[1]": weight, "scales[1]": scale},
        "assemble_gradient": {"grad": weight, "differences": lambda: torch.ones(1)},
        "assemble_gradient_many": {"grads[1]": weight, "differences": lambda: torch.ones(1)},
        "probe_matmul": {"x": lambda: weight((3, 12)), "codes": codes, "scale": scale,
                         "bias": lambda: torch.ones(4)},
        "hadamard": {"x": weight}, "hadamard_quantize": {"w": weight},
    }.items()
    for name, value in given.items()
]  # fmt: skip


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize("kind", [freed, fake, Wrapper, nested])
@pytest.mark.parametrize(("op", "name", "value"), INPUTS)
def test_an_input_without_memory_is_named(op, name, value, kind):
    if (reason := fk.why_not("cpu")) is not None:
        pytest.skip(reason)
    argument, _, place = name.partition("[")
    bad = kind(value())
    given = [value()] * int(place[0]) + [bad] if place else bad
    error, text = ValueError, NO_MEMORY
    if kind is nested:
        error, text = TypeError, "is a nested tensor, expected a plain one"
    refuse(op, f"{name} {text}", error, **{argument: given})


@pytest.mark.filterwarnings("ignore:Accessing the data pointer of FakeTensor")
@pytest.mark.parametrize("kind", [freed, fake, Wrapper])
@pytest.mark.parametrize("op", OUTS)
def test_an_output_without_memory_is_named(op, kind):
    dtype, shape = OUTS[op]
    refuse(op, f"out {NO_MEMORY}", out=kind(torch.zeros(shape, dtype=dtype)))
    count = kind(torch.zeros(2, dtype=torch.int64))
    refuse("perturb_quantize", f"flip_count {NO_MEMORY}", flip_count=count)


def test_the_error_of_a_check_stays_its_own():
    refuse("quantize", "w has dtype float64, expected float32", TypeError,
           w=weight(dtype=torch.float64), scale=freed(scale()))  # fmt: skip
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        fk.quantize(freed(weight()), scale())


@pytest.mark.parametrize("form", ["values", "codes"])
@pytest.mark.parametrize("many", [False, True])
def test_outputs_of_another_form(form, many):
    flips = perturb(form="flips")
    for out in (pack(), flips):
        text = f"out is a {type(out).__name__}, expected {ARRAY}"
        op, given = ("perturb_quantize_many", [out, None]) if many else ("perturb_quantize", out)
        refuse(op, text, TypeError, form=form, **{"outs" if many else "out": given})
    part = fk.Flips(flips.base, None, flips.code, flips.count)
    text = f"out.index is None, expected {ARRAY}"
    refuse("perturb_quantize", text, TypeError, form="flips", out=part)
    for out in ([1], "out", torch.zeros(3)):
        text = f"out is a {type(out).__name__}, expected a fogzo_kernels.Packed"
        refuse("pack", text, TypeError, out=out)


@pytest.mark.parametrize("bits", [np.zeros(2), True, 2.0, "2", None])
def test_bits_of_a_packed(bits):
    given = fk.Packed(pack().data, bits, SHAPE)
    refuse("dequantize", f"codes.bits is {bits!r}, expected 1, 2, 4 or 8", codes=given)


@pytest.mark.parametrize("shape", [12, "412", np.zeros(2), None])
def test_shape_of_a_packed(shape):
    given = fk.Packed(pack().data, 2, shape)
    text = f"codes.shape is {shape!r}, expected a tuple of ints >= 0"
    refuse("dequantize", text, TypeError, codes=given)
    refuse("probe_matmul", text, TypeError, codes=given)


def test_parts_of_flips_are_of_one_kind():
    parts = {
        "base": codes(), "index": torch.zeros(1, 2, dtype=torch.int64),
        "code": torch.zeros(1, 2, dtype=U8), "count": torch.tensor([1]),
    }  # fmt: skip
    matmul(codes=fk.Flips(**parts))
    for name, part in parts.items():
        listed = {**parts, name: part.tolist()}
        text = f"codes.{name} is a list, expected {ARRAY}"
        refuse("probe_matmul", text, TypeError, codes=fk.Flips(**listed))
    for name in ("index", "code", "count"):
        text = f"codes.{name} is a numpy array, expected torch, as codes.base is"
        other = {**parts, name: parts[name].numpy()}
        refuse("probe_matmul", text, TypeError, codes=fk.Flips(**other))
        text = f"codes.{name} is on meta, expected cpu, where codes.base is"
        refuse("probe_matmul", text, codes=fk.Flips(**{**parts, name: parts[name].to("meta")}))
        text = f"codes.{name} has the layout torch.sparse_coo, expected torch.strided"
        other = {**parts, name: parts[name].to_sparse()}
        refuse("probe_matmul", text, TypeError, codes=fk.Flips(**other))
