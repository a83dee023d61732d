"""Bad input to the operations: the exact text (op: argument got, expected) and nothing written."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

import fogzo_kernels as fk

MID, SIGN = fk.Grid("mid-rise", 2), fk.Grid("sign")
SHAPE = (4, 12)
SURROGATES = "identity, clipped, hardtanh, tanh, approx_sign, trust"
PLACE = {"seed": 0, "step": 0, "tensor": 0}
ARRAY = "a torch tensor or a NumPy array"


def weight(shape=SHAPE, dtype=torch.float32):
    return torch.linspace(-1, 1, math.prod(shape)).reshape(shape).to(dtype)


def scale(*values):
    return torch.tensor(values if values else 0.5)


def scales(**changes):
    named = {"w": weight(), "grid": MID, **changes}
    return fk.compute_scale(named.pop("w"), named.pop("grid"), **named)


def quantize(**changes):
    named = {"w": weight(), "scale": scale(), "grid": MID, **changes}
    return fk.quantize(named.pop("w"), named.pop("scale"), named.pop("grid"), **named)


def dequantize(**changes):
    codes = torch.zeros(SHAPE, dtype=torch.uint8)
    named = {"codes": codes, "scale": scale(), "grid": MID, **changes}
    return fk.dequantize(named.pop("codes"), named.pop("scale"), named.pop("grid"), **named)


def fake(**changes):
    named = {"w": weight(), "scale": scale(), "grid": MID, **changes}
    return fk.fake_quantize(named.pop("w"), named.pop("scale"), named.pop("grid"), **named)


def backward(**changes):
    named = {"grad": weight(), "w": weight(), "scale": scale(), "grid": MID, **changes}
    given = [named.pop(name) for name in ("grad", "w", "scale", "grid")]
    return fk.fake_quantize_backward(*given, **named)


def pack(codes=None, bits=2, **named):
    return fk.pack(torch.zeros(SHAPE, dtype=torch.uint8) if codes is None else codes, bits, **named)


def norm(**changes):
    named = {"grads": [weight()], "scales": [scale()], "surrogate": "clipped", **changes}
    return fk.whitened_norm(
        named.pop("grads"), named.pop("scales"), named.pop("surrogate"), **named
    )


def noise(shape=SHAPE, surrogate="clipped", **changes):
    return fk.noise(shape, surrogate, **{**PLACE, **changes})


def perturb(**changes):
    named = {
        "w": weight(), "grad": weight(), "scale": scale(), "grid": MID, "surrogate": None,
        "gamma": 0.5, "norm": 1.0, **PLACE, **changes,
    }  # fmt: skip
    given = [named.pop(name) for name in ("w", "grad", "scale", "grid", "surrogate")]
    return fk.perturb_quantize(*given, **named)


def many(**changes):
    named = {
        "ws": [weight()] * 2, "grads": [weight()] * 2, "scales": [scale()] * 2, "grids": MID,
        "tensors": [0, 1], "seed": 0, "step": 0, "gamma": 0.5, "norm": 1.0, **changes,
    }  # fmt: skip
    given = [named.pop(name) for name in ("ws", "grads", "scales", "grids")]
    return fk.perturb_quantize_many(*given, **named)


def assemble(**changes):
    named = {
        "grad": weight(), "scale": scale(), "differences": torch.ones(1), "surrogate": "clipped",
        "gamma": 0.5, "norm": 1.0, **PLACE, **changes,
    }  # fmt: skip
    given = [named.pop(name) for name in ("grad", "scale", "differences", "surrogate")]
    return fk.assemble_gradient(*given, **named)


def assemble_many(**changes):
    named = {
        "grads": [weight()] * 2, "scales": [scale()] * 2, "differences": torch.ones(1),
        "surrogates": "clipped", "tensors": [0, 1], "seed": 0, "step": 0, "gamma": 0.5,
        "norm": 1.0, **changes,
    }  # fmt: skip
    given = [named.pop(name) for name in ("grads", "scales", "differences", "surrogates")]
    return fk.assemble_gradient_many(*given, **named)


def matmul(**changes):
    codes = torch.zeros(SHAPE, dtype=torch.uint8)
    named = {"x": weight((3, 12)), "codes": codes, "scale": scale(), "grid": MID, **changes}
    given = [named.pop(name) for name in ("x", "codes", "scale", "grid")]
    return fk.probe_matmul(*given, **named)


def rotate(x=None, **named):
    return fk.hadamard(weight() if x is None else x, **named)


OPS = {
    "compute_scale": scales, "quantize": quantize, "dequantize": dequantize, "pack": pack,
    "fake_quantize": fake, "fake_quantize_backward": backward, "whitened_norm": norm,
    "noise": noise, "perturb_quantize": perturb, "perturb_quantize_many": many,
    "assemble_gradient": assemble, "assemble_gradient_many": assemble_many,
    "probe_matmul": matmul, "hadamard": rotate,
}  # fmt: skip
SCALED = ("quantize", "dequantize", "fake_quantize", "fake_quantize_backward", "whitened_norm",
          "perturb_quantize", "assemble_gradient", "probe_matmul")  # fmt: skip
DRAWN = ("noise", "perturb_quantize", "assemble_gradient")
U8 = torch.uint8


def argument_of(op):
    """The name of the operation's first array, and how a scale's error calls it."""
    names = {"dequantize": "codes", "probe_matmul": "codes", "whitened_norm": "grads"}
    return names.get(op, "grad" if op == "assemble_gradient" else "w")


def given_scale(op, value):
    return {"scales": [value]} if op == "whitened_norm" else {"scale": value}


def refuse(op, text, error=ValueError, **changes):
    with pytest.raises(error) as caught:
        OPS[op](**changes)
    assert str(caught.value) == f"{op}: {text}"
    assert type(caught.value) is error


@pytest.mark.parametrize("op", OPS)
def test_the_unbroken_call_is_taken(op):
    OPS[op]()


@pytest.mark.parametrize("op", SCALED)
@pytest.mark.parametrize(
    "value", [0.0, -0.5, 2.0**-101, math.nan, math.inf, -math.inf], ids=lambda v: f"{v}"
)
def test_scale_values(op, value):
    with pytest.raises(ValueError, match=rf"^{op}: scale has ") as caught:
        OPS[op](**given_scale(op, scale([1.0], [1.0], [value], [1.0])))
    assert "2^-100" in str(caught.value)
    with fk.use_backend("reference"):
        refuse(op, f"scale has the value {value}, expected finite numbers >= 2^-100",
               **given_scale(op, scale(*[[value]] * 4)))  # fmt: skip


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
        ("mid-tread", 1, "bits is 1, expected an int in 2..8 for kind 'mid-tread'"),
        ("mid-tread", 9, "bits is 9, expected an int in 2..8 for kind 'mid-tread'"),
        ("mid-rise", True, "bits is True, expected an int in 2..8 for kind 'mid-rise'"),
        ("mid-rise", 2.0, "bits is 2.0, expected an int in 2..8 for kind 'mid-rise'"),
    ],
)
def test_grids(kind, bits, text):
    with pytest.raises(ValueError, match="^Grid: ") as caught:
        fk.Grid(kind, bits)
    assert str(caught.value) == f"Grid: {text}"


WORDS = "an int in 0..2^32-1"
BOTH = f"{WORDS} or a 0-dim int64 array"
COORDINATES = [
    ("seed", 2**64, "is 18446744073709551616, expected an int of 64 bits or a 0-dim int64 array"),
    ("seed", -(2**63) - 1, "is -9223372036854775809, expected an int of 64 bits or a 0-dim int64 "
     "array"),
    ("step", -1, f"is -1, expected {BOTH}"),
    ("step", 2**32, f"is 4294967296, expected {BOTH}"),
    ("tensor", -1, "is -1, expected an int in 0..2^32-2"),
    ("tensor", 2**32 - 1, "is 4294967295, expected an int in 0..2^32-2"),
    ("offset", -1, "is -1, expected an int in 0..2^35"),
    ("offset", 2**35 + 1, "is 34359738369, expected an int in 0..2^35"),
    ("offset", 2**35 - 47, "is 34359738321 with row_pitch 12 and 4 rows of 12, expected element "
     "numbers below 2^35"),
    ("row_pitch", 11, "is 11, expected an int in 12..2^35"),
    ("row_pitch", 2**35, "*"),
    ("noise", "gaussian", "is 'gaussian', expected one of published, rademacher"),
    ("surrogate", "ste", f"is 'ste', expected one of {SURROGATES}"),
]  # fmt: skip


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize(("argument", "value", "text"), COORDINATES)
def test_coordinates(op, argument, value, text):
    if text == "*":
        text = f"is 0 with row_pitch {value} and 4 rows of 12, expected element numbers below 2^35"
        argument_named = "offset"
    else:
        argument_named = argument
    refuse(op, f"{argument_named} {text}", **{argument: value})


@pytest.mark.parametrize("op", DRAWN)
@pytest.mark.parametrize("value", [1.5, "1", None])
def test_coordinates_are_integers(op, value):
    refuse(op, f"step is {value!r}, expected {BOTH}", TypeError, step=value)
    refuse(op, f"tensor is {value!r}, expected an int in 0..2^32-2", TypeError, tensor=value)


@pytest.mark.parametrize("op", DRAWN)
def test_seed_and_step_arrays(op):
    text = "seed has dtype float32, expected int64"
    refuse(op, text, TypeError, seed=torch.tensor(1.0))
    refuse(op, "step has shape (1,), expected ()", step=torch.tensor([1]))
    refuse(op, f"step is -1, expected {BOTH}", step=torch.tensor(-1))


@pytest.mark.parametrize(
    ("value", "error"),
    [(-0.1, ValueError), (1.0000001, ValueError), (math.nan, ValueError), (math.inf, ValueError),
     ("0.5", TypeError), (None, TypeError)],
)  # fmt: skip
@pytest.mark.parametrize("op", ["perturb_quantize", "assemble_gradient", "perturb_quantize_many",
                                "assemble_gradient_many"])  # fmt: skip
def test_gamma(op, value, error):
    refuse(op, f"gamma is {value!r}, expected a float in [0, 1]", error, gamma=value)


@pytest.mark.parametrize("op", ["perturb_quantize", "assemble_gradient"])
def test_gamma_and_norm_arrays(op):
    refuse(op, "gamma has dtype float32, expected float64", TypeError, gamma=torch.tensor(0.5))
    text = "norm has dtype float64, expected float32"
    refuse(op, text, TypeError, norm=torch.tensor(1.0, dtype=torch.float64))
    refuse(op, "norm is -1.0, expected a number >= 0 or a 0-dim float32 array", norm=-1.0)


@pytest.mark.parametrize("value", [0, -1])
def test_probes(value):
    refuse("perturb_quantize", f"probes is {value}, expected an int >= 1", probes=value)
    refuse("perturb_quantize_many", f"probes is {value}, expected an int >= 1", probes=value)
    text = f"differences has shape {(0,)}, expected (n,) with n >= 1 probes"
    refuse("assemble_gradient", text, differences=torch.ones(0))
    text = "differences has shape (1, 1), expected (n,) with n >= 1 probes"
    refuse("assemble_gradient", text, differences=torch.ones(1, 1))


def test_probe_numbers():
    refuse("noise", f"first_probe is -1, expected {WORDS}", probe=-1)
    refuse("perturb_quantize", f"first_probe is 4294967296, expected {WORDS}", first_probe=2**32)
    refuse("perturb_quantize", "probes is 2, expected an int >= 1", first_probe=2**32 - 1, probes=2)


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


def test_more_elements_than_can_be_numbered():
    text = "shape has 34359738369 elements, expected at most 2^35"
    refuse("noise", text, shape=(2**35 + 1,))
    huge = torch.empty(1).expand(2**18, 2**18)
    text = "w has 68719476736 elements, expected at most 2^35"
    refuse("perturb_quantize", text, w=huge, grad=huge)


def test_devices_of_noise():
    usable = "expected a device that torch can use here"
    refuse("noise", f"device is 'gpu', {usable}", device="gpu")
    refuse("noise", f"device is 1.5, {usable}", device=1.5)
    if not torch.cuda.is_available():
        refuse("noise", f"device is 'cuda', {usable}", device="cuda")


@pytest.mark.parametrize("shape", [(-1, 3), (2.5,), ("3",)])
def test_shapes_of_noise(shape):
    refuse("noise", "shape is 5, expected a tuple of ints >= 0", TypeError, shape=5)
    error = ValueError if shape[0] == -1 else TypeError
    refuse("noise", f"shape is {shape[0]!r}, expected a tuple of ints >= 0", error, shape=shape)


OUTS = {  # op: dtype of out, its shape
    "quantize": (U8, SHAPE), "dequantize": (torch.float32, SHAPE),
    "fake_quantize": (torch.float32, SHAPE), "fake_quantize_backward": (torch.float32, SHAPE),
    "noise": (torch.float32, SHAPE), "perturb_quantize": (torch.float32, (2, *SHAPE)),
    "assemble_gradient": (torch.float32, SHAPE), "probe_matmul": (torch.float32, (1, 3, 4)),
    "hadamard": (torch.float32, SHAPE), "whitened_norm": (torch.float32, ()),
    "compute_scale": (torch.float32, (4, 1)),
}  # fmt: skip


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


@pytest.mark.parametrize("op", ["quantize", "perturb_quantize", "fake_quantize_backward"])
def test_overlap_that_is_refused(op):
    memory = torch.zeros(4096)
    w = memory[:48].view(SHAPE).copy_(weight())
    dtype, shape = OUTS[op]
    out = memory.view(dtype)[20 : 20 + math.prod(shape)].view(shape)
    before = memory.clone()
    refuse(op, "out overlaps w in memory, expected memory apart from w", w=w, out=out)
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
    with pytest.raises(ValueError, match="scale has"):
        OPS[op](scales=[scale(), scale(*[[0.0]] * 4)], outs=outs)
    assert all((out == 165).all() for out in outs)


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


def test_scale_rules():
    text = "rule is 'max', expected one of fixed, absmean, absmax, lsq, quest"
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
    wanted = "expected a float32 array with int8 x, else None"
    refuse("probe_matmul", f"x_scale is None, {wanted}", x=int8)
    text = f"x_scale is given with x of another dtype, {wanted}"
    refuse("probe_matmul", text, x_scale=torch.ones(3))
    text = "x_scale has shape (2,), expected (3,), a scale for each row of x"
    refuse("probe_matmul", text, x=int8, x_scale=torch.ones(2))
    text = "x has dtype float64, expected float32 or bfloat16 or int8"
    refuse("probe_matmul", text, TypeError, x=weight((3, 12), torch.float64))


def test_flips_given_to_a_matmul_are_in_range():
    base = torch.zeros(SHAPE, dtype=U8)
    index, code = torch.tensor([[47, 48]]), torch.zeros(1, 2, dtype=U8)
    text = "codes.index has an element number out of range, expected 0..47"
    refuse("probe_matmul", text, codes=fk.Flips(base, index, code, torch.tensor([2])))
    matmul(codes=fk.Flips(base, index, code, torch.tensor([1])))
    text = "codes.count has the value 3, expected 0..2"
    refuse("probe_matmul", text, codes=fk.Flips(base, index, code, torch.tensor([3])))


def test_blocks_of_a_rotation():
    for block in (0, 3, 2**21):
        text = f"block is {block}, expected a power of two in 1..2^20"
        refuse("hadamard", text, block=block)


def test_radius_names():
    with pytest.raises(ValueError, match="^radius: ") as caught:
        fk.radius("ste")
    assert str(caught.value) == f"radius: surrogate is 'ste', expected one of {SURROGATES}"
