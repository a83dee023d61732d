"""Bad coordinates of noise, gamma and norm: the exact text (op: argument got, expected)."""

from __future__ import annotations

import math

import pytest
import torch
from op_calls import DRAWN, OPS, SURROGATES, refuse

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


@pytest.mark.parametrize("op", ["noise", "assemble_gradient", "assemble_gradient_many"])
def test_a_surrogate_that_no_grid_chooses_is_named(op):
    """identity in its place would be wrong for probes of a sign grid; later calls refuse it too."""
    name = "surrogates" if op == "assemble_gradient_many" else "surrogate"
    for _ in range(2):
        refuse(op, f"surrogate is None, expected one of {SURROGATES}", **{name: None})
        OPS[op](**{name: "identity"})


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
