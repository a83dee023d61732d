"""Bad input to the operations: the exact text (op: argument got, expected) and nothing written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from op_calls import (
    ARRAY,
    MID,
    OPS,
    SCALED,
    SHAPE,
    SIGN,
    SURROGATES,
    U8,
    argument_of,
    given_scale,
    matmul,
    pack,
    refuse,
    scale,
    weight,
)

import fogzo_kernels as fk


@pytest.mark.parametrize("op", OPS)
def test_the_unbroken_call_is_taken(op):
    OPS[op]()


@pytest.mark.parametrize("op", SCALED)
@pytest.mark.parametrize(
    "value", [0.0, -0.5, 2.0**-101, math.nan, math.inf, -math.inf], ids=lambda v: f"{v}"
)
def test_scale_values(op, value):
    text = f"scale has the value {value}, expected finite numbers >= 2^-100"
    for backend in ("auto", "reference"):
        with fk.use_backend(backend):
            refuse(op, text, **given_scale(op, scale([1.0], [1.0], [value], [1.0])))


def test_a_bad_scale_of_many_is_named_by_its_place():
    for op in ("perturb_quantize_many", "assemble_gradient_many"):
        text = "scales[1] has the value nan, expected finite numbers >= 2^-100"
        refuse(op, text, scales=[scale(), scale(math.nan)[0]])


ABSENT = [
    ("quantize", "w"), ("quantize", "scale"), ("fake_quantize", "w"), ("fake_quantize", "scale"),
    ("perturb_quantize", "w"), ("perturb_quantize", "scale"), ("perturb_quantize", "grad"),
    ("fake_quantize_backward", "grad"), ("compute_scale", "w"), ("dequantize", "codes"),
    ("assemble_gradient", "grad"), ("assemble_gradient", "differences"), ("probe_matmul", "x"),
    ("probe_matmul", "codes"), ("probe_matmul", "scale"),
]  # fmt: skip


@pytest.mark.parametrize(("op", "name"), ABSENT)
def test_none_in_place_of_an_array(op, name):
    refuse(op, f"{name} is None, expected {ARRAY}", TypeError, **{name: None})


@pytest.mark.parametrize("op", [fk.hadamard, fk.quantize_activation, lambda x: fk.pack(x, 2)])
def test_none_in_place_of_the_only_array(op):
    with pytest.raises(TypeError, match=f" is None, expected {ARRAY}"):
        op(None)


@pytest.mark.parametrize("op", SCALED)
def test_scale_shapes_and_dtypes(op):
    name = argument_of(op)
    shape = "(), (4, 1) or (4, G, 1) with G dividing 12"
    for bad in ((3, 1), (4,), (1, 1), (4, 2), (4, 5, 1), (1, 4, 1), (4, 0, 1), (4, 12)):
        got = f"scale has shape {bad}, expected {shape} to match {name} {SHAPE}"
        refuse(op, got, **given_scale(op, torch.ones(bad)))
    wide = torch.ones((), dtype=torch.float64)
    refuse(op, "scale has dtype float64, expected float32", TypeError, **given_scale(op, wide))


@pytest.mark.parametrize("op", ["quantize", "fake_quantize", "compute_scale", "perturb_quantize"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.int32])
def test_dtype_of_a_weight(op, dtype):
    name = str(dtype).removeprefix("torch.")
    refuse(op, f"w has dtype {name}, expected float32", TypeError, w=weight(dtype=dtype))


@pytest.mark.parametrize(
    ("op", "argument"),
    [
        ("fake_quantize_backward", "grad"),
        ("perturb_quantize", "grad"),
        ("assemble_gradient", "grad"),
        ("hadamard", "x"),
    ],
)
def test_dtype_of_a_gradient(op, argument):
    text = f"{argument} has dtype float16, expected float32"
    refuse(op, text, TypeError, **{argument: weight(dtype=torch.float16)})


@pytest.mark.parametrize("op", ["dequantize", "probe_matmul", "pack"])
def test_dtype_of_codes(op):
    text = "codes has dtype int64, expected uint8"
    refuse(op, text, TypeError, codes=torch.zeros(SHAPE, dtype=torch.int64))


@pytest.mark.parametrize("op", ["fake_quantize_backward", "perturb_quantize"])
def test_shape_of_a_gradient(op):
    text = "grad has shape (4, 11), expected (4, 12), w's"
    refuse(op, text, grad=weight((4, 11)))


@pytest.mark.parametrize("op", ["quantize", "fake_quantize", "compute_scale", "perturb_quantize"])
def test_a_weight_needs_a_dimension(op):
    refuse(op, "w has shape (), expected at least one dimension", w=torch.tensor(1.0))


@pytest.mark.parametrize("op", SCALED)
def test_one_kind_of_array(op):
    text = "scale is a numpy array, expected torch, as {} is"
    name = {"probe_matmul": "x", "fake_quantize_backward": "w"}.get(op, argument_of(op))
    refuse(op, text.format(name), TypeError, **given_scale(op, np.ones((), np.float32)))
    text = f"scale is a float, expected {ARRAY}"
    refuse(op, text, TypeError, **given_scale(op, 0.5))


@pytest.mark.parametrize("op", ["quantize", "fake_quantize", "perturb_quantize"])
def test_one_device(op):
    meta = torch.empty((), device="meta")
    name = argument_of(op)
    refuse(op, f"scale is on meta, expected cpu, where {name} is", scale=meta)


def test_lists_are_no_arrays():
    refuse("quantize", f"w is a list, expected {ARRAY}", TypeError, w=[1.0, 2.0])
    refuse("hadamard", f"x is a float, expected {ARRAY}", TypeError, x=1.0)


@pytest.mark.parametrize("op", ["quantize", "dequantize", "fake_quantize", "fake_quantize_backward",
                                "perturb_quantize", "compute_scale", "probe_matmul"])  # fmt: skip
def test_a_grid_is_a_grid(op):
    refuse(op, "grid is 'sign', expected a fogzo_kernels.Grid", TypeError, grid="sign")


@pytest.mark.parametrize(
    ("kind", "bits", "text"),
    [
        ("round", None, "kind is 'round', expected one of sign, ternary, mid-tread, mid-rise"),
        ("sign", 1, "bits is 1, expected none for kind 'sign'"),
        ("ternary", 2, "bits is 2, expected none for kind 'ternary'"),
        ("mid-rise", None, "bits is None, expected an int in 2..8 for kind 'mid-rise'"),
        (
            "mid-tread",
            1,
            "bits is 1, expected an int in 2..8 for kind 'mid-tread' (one bit is kind 'sign')",
        ),
        ("mid-tread", 9, "bits is 9, expected an int in 2..8 for kind 'mid-tread'"),
        ("mid-rise", True, "bits is True, expected an int in 2..8 for kind 'mid-rise'"),
        ("mid-rise", 2.0, "bits is 2.0, expected an int in 2..8 for kind 'mid-rise'"),
    ],
)
def test_grids(kind, bits, text):
    with pytest.raises(ValueError, match="^Grid: ") as caught:
        fk.Grid(kind, bits)
    assert str(caught.value) == f"Grid: {text}"


@pytest.mark.parametrize(
    ("grid", "surrogate", "expected"),
    [
        (MID, "hardtanh", "identity, clipped, trust for grid 'mid-rise'"),
        (MID, "tanh", "identity, clipped, trust for grid 'mid-rise'"),
        (fk.Grid("ternary"), "approx_sign", "identity, clipped, trust for grid 'ternary'"),
        (SIGN, "identity", "hardtanh, tanh, approx_sign, trust for grid 'sign'"),
        (SIGN, "clipped", "hardtanh, tanh, approx_sign, trust for grid 'sign'"),
    ],
)
@pytest.mark.parametrize("op", ["perturb_quantize", "fake_quantize_backward"])
def test_pairs_that_do_not_exist(op, grid, surrogate, expected):
    text = f"surrogate is {surrogate!r}, expected one of {expected}"
    refuse(op, text, grid=grid, surrogate=surrogate)


def test_trust_on_sign_has_no_rademacher_noise():
    text = "surrogate is 'trust' with noise 'rademacher', expected noise 'published' for grid "
    refuse("perturb_quantize", f"{text}'sign'", grid=SIGN, surrogate="trust", noise="rademacher")


def test_forms_and_sides():
    text = "form is 'bits', expected one of values, codes, packed, flips"
    refuse("perturb_quantize", text, form="bits")
    refuse("perturb_quantize", "sides is 'minus', expected one of both, plus", sides="minus")
    text = "form is 'codes' with grid None, expected 'values'"
    refuse("perturb_quantize", text, grid=None, form="codes")


@pytest.mark.parametrize(("op", "first"), [("perturb_quantize_many", "ws"),
                                           ("assemble_gradient_many", "grads")])  # fmt: skip
def test_lists(op, first):
    refuse(op, f"{first} is a Tensor, expected a list or tuple", TypeError, **{first: weight()})
    refuse(op, f"{first} is empty, expected at least one entry", **{first: []})
    refuse(op, f"scales has length 1, expected 2 to match {first}", scales=[scale()])
    refuse(op, f"tensors has length 3, expected 2 to match {first}", tensors=[0, 1, 2])
    refuse(op, "tensors is a int, expected a list or tuple", TypeError, tensors=1)
    refuse(op, f"offsets has length 1, expected 2 to match {first}", offsets=[0])


def test_lists_of_whitened_norm():
    refuse("whitened_norm", "grads is empty, expected at least one entry", grads=[])
    refuse("whitened_norm", "scales has length 2, expected 1 to match grads", scales=[scale()] * 2)
    text = "surrogate has length 2, expected 1 to match grads"
    refuse("whitened_norm", text, surrogate=["clipped", "trust"])
    text = f"surrogate is 'relu', expected one of {SURROGATES}"
    refuse("whitened_norm", text, surrogate="relu")


@pytest.mark.parametrize("op", ["perturb_quantize_many", "assemble_gradient_many"])
def test_a_bad_scale_late_in_a_list_leaves_every_output_alone(op):
    shape = (2, *SHAPE) if op == "perturb_quantize_many" else SHAPE
    outs = [torch.full(shape, 165.0) for _ in range(2)]
    with pytest.raises(ValueError, match=r"scales\[1\] has"):
        OPS[op](scales=[scale(), scale(*[[0.0]] * 4)], outs=outs)
    assert all((out == 165).all() for out in outs)


def test_scale_rules():
    text = "rule is 'max', expected one of fixed, absmean, absmax, lsq, quest, stretched"
    refuse("compute_scale", text, rule="max")
    text = "rule is 'absmean', expected another rule for grid 'mid-rise'"
    refuse("compute_scale", text, rule="absmean")
    text = "granularity is 'row', expected one of tensor, channel, group"
    refuse("compute_scale", text, granularity="row")
    text = "group_size is None with granularity 'group', expected an int for granularity 'group', "
    refuse("compute_scale", text + "else None", granularity="group")
    text = "group_size is 5, expected a divisor of 12"
    refuse("compute_scale", text, granularity="group", group_size=5)
    text = "w has shape (0, 3), expected at least one element"
    refuse("compute_scale", text, w=torch.zeros(0, 3))
    text = "w has values that are not finite, expected finite numbers"
    refuse("compute_scale", text, w=torch.tensor([[1.0, math.nan]]))


def test_packing():
    refuse("pack", "bits is 0, expected an int in 1..8", bits=0)
    refuse("pack", "bits is 9, expected an int in 1..8", bits=9)
    text = "codes has the value 4, expected values below 4"
    refuse("pack", text, codes=torch.tensor([1, 4], dtype=U8))
    packed = pack()
    text = f"packed.data has shape {(4, 3)}, expected {(4, 4)}"
    with pytest.raises(ValueError, match="^unpack: ") as caught:
        fk.unpack(fk.Packed(packed.data, 2, (4, 13)))
    assert str(caught.value) == f"unpack: {text}"
    listed = fk.Packed([57], 2, (3,))
    refuse("dequantize", f"codes.data is a list, expected {ARRAY}", TypeError, codes=listed)
    refuse("dequantize", f"codes.bits is 2, expected 4 for {fk.Grid('mid-rise', 3)}",
           codes=packed, grid=fk.Grid("mid-rise", 3))  # fmt: skip


def test_matmul_shapes():
    text = "x has shape (3, 11), expected (..., 12) to match codes (4, 12)"
    refuse("probe_matmul", text, x=weight((3, 11)))
    text = "x has shape (12,), expected (M, K) or (P, M, K)"
    refuse("probe_matmul", text, x=weight((12,)))
    text = "x has shape (3, 5, 12), expected (2, M, 12) to match codes"
    refuse("probe_matmul", text, x=weight((3, 5, 12)), codes=torch.zeros(2, 4, 12, dtype=U8))
    text = "bias has shape (3,), expected (4,), one for each output"
    refuse("probe_matmul", text, bias=torch.zeros(3))
    int8 = torch.zeros(3, 12, dtype=torch.int8)
    wanted = "expected a float32 array with int8 or float8 x, else None"
    refuse("probe_matmul", f"x_scale is None, {wanted}", x=int8)
    text = f"x_scale is given with x of another dtype, {wanted}"
    refuse("probe_matmul", text, x_scale=torch.ones(3))
    text = "x_scale has shape (2,), expected (3,), a scale for each row of x"
    refuse("probe_matmul", text, x=int8, x_scale=torch.ones(2))
    text = "x has dtype float64, expected float32 or bfloat16 or float16 or int8 or float8_e4m3fn"
    refuse("probe_matmul", text, TypeError, x=weight((3, 12), torch.float64))


@pytest.mark.parametrize("backend", ["auto", "reference"])
def test_flips_given_to_a_matmul_are_in_range_and_order(backend):
    base = torch.zeros(SHAPE, dtype=U8)
    index, code = torch.tensor([[47, 48]]), torch.zeros(1, 2, dtype=U8)
    with fk.use_backend(backend):
        text = "codes.index has an element number out of range, expected 0..47"
        refuse("probe_matmul", text, codes=fk.Flips(base, index, code, torch.tensor([2])))
        matmul(codes=fk.Flips(base, index, code, torch.tensor([1])))
        text = "codes.count has the value 3, expected 0..2"
        refuse("probe_matmul", text, codes=fk.Flips(base, index, code, torch.tensor([3])))
        text = (
            "codes.index is out of order on side 0, expected element numbers that ascend, each once"
        )
        for numbers in ([5, 5], [6, 5]):
            given = fk.Flips(base, torch.tensor([numbers]), code, torch.tensor([2]))
            refuse("probe_matmul", text, codes=given)


def test_blocks_of_a_rotation():
    for block in (0, 3, 2**21):
        text = f"block is {block}, expected a power of two in 1..2^20"
        refuse("hadamard", text, block=block)


def test_radius_names():
    with pytest.raises(ValueError, match="^radius: ") as caught:
        fk.radius("ste")
    assert str(caught.value) == f"radius: surrogate is 'ste', expected one of {SURROGATES}"
