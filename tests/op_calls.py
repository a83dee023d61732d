"""One good call of every operation, of which a test breaks one argument."""

from __future__ import annotations

import math

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


def rotate_rows(**changes):
    named = {"w": weight(), "grid": MID, **changes}
    return fk.hadamard_quantize(named.pop("w"), named.pop("grid"), **named)


OPS = {
    "compute_scale": scales, "quantize": quantize, "dequantize": dequantize, "pack": pack,
    "fake_quantize": fake, "fake_quantize_backward": backward, "whitened_norm": norm,
    "noise": noise, "perturb_quantize": perturb, "perturb_quantize_many": many,
    "assemble_gradient": assemble, "assemble_gradient_many": assemble_many,
    "probe_matmul": matmul, "hadamard": rotate,
    "hadamard_quantize": rotate_rows,
}  # fmt: skip
SCALED = ("quantize", "dequantize", "fake_quantize", "fake_quantize_backward", "whitened_norm",
          "perturb_quantize", "assemble_gradient", "probe_matmul")  # fmt: skip
DRAWN = ("noise", "perturb_quantize", "assemble_gradient")
U8 = torch.uint8
OUTS = {  # op: dtype of out, its shape
    "quantize": (U8, SHAPE), "dequantize": (torch.float32, SHAPE),
    "fake_quantize": (torch.float32, SHAPE), "fake_quantize_backward": (torch.float32, SHAPE),
    "noise": (torch.float32, SHAPE), "perturb_quantize": (torch.float32, (2, *SHAPE)),
    "assemble_gradient": (torch.float32, SHAPE), "probe_matmul": (torch.float32, (1, 3, 4)),
    "hadamard": (torch.float32, SHAPE), "whitened_norm": (torch.float32, ()),
    "compute_scale": (torch.float32, (4, 1)),
}  # fmt: skip


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
