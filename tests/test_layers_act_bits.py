"""QuantLinear with act_bits: its forward, its gradient, its state, and what it refuses."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import QuantConfig, QuantLinear
from fogzo.layers import config as config_module

CONFIGS = [
    {"bits": 2},
    {"grid": "sign", "scale": "absmean"},
    {"grid": "ternary", "granularity": "group", "group_size": 4},
    {"grid": "mid-tread", "bits": 4, "scale": "absmax", "granularity": "tensor"},
    {"bits": 8, "surrogate": "identity"},
]
ACT_BITS = config_module.ACT_BITS
EPS = torch.finfo(torch.float32).eps


def layer_of(act_bits: int | None = 8, bias: bool = True, **options: object) -> QuantLinear:
    torch.manual_seed(0)
    return QuantLinear(24, 6, bias, QuantConfig(act_bits=act_bits, **options))


def inputs(*shape: int) -> Tensor:
    """Tokens of all sizes, one of zeros among them."""
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(*shape, 24, generator=generator) * torch.logspace(-3, 3, shape[-1])[:, None]
    x[..., 0, :] = 0
    return x


class Rounded(torch.autograd.Function):
    """DESIGN section 2, Activations, as a user writes it in plain PyTorch."""

    @staticmethod
    def forward(ctx, x, bits):
        if bits == 1:
            a = x.abs().double().mean(-1, keepdim=True).float()
            ctx.save_for_backward(x.abs() <= a)
            return torch.where(x >= 0, a, -a)
        q = 2 ** (bits - 1) - 1
        a = x.abs().amax(-1, keepdim=True) / q
        ctx.save_for_backward(torch.ones_like(x, dtype=torch.bool))
        return (x / a).round().clamp(-q, q).nan_to_num(0) * a

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


def by_hand(layer: QuantLinear, x: Tensor, act_bits: int) -> tuple[Tensor, ...]:
    """Output in float64, and the gradients of its squared sum, of the float matmul's STE."""
    x = x.clone().requires_grad_()
    w = layer.quantized_weight().detach().requires_grad_()
    bias = layer.bias.detach().clone().requires_grad_()
    y = F.linear(Rounded.apply(x, act_bits).double(), w.double(), bias.double())
    y.square().sum().backward()
    with fk.use_backend("reference"):
        grad_w, _ = fk.fake_quantize_backward(
            w.grad, layer.weight.detach(), layer.scale, layer.grid, layer.surrogate
        )
    return y.detach(), x.grad, grad_w, bias.grad


def near(got: Tensor, exact: Tensor, of: Tensor, terms: int) -> None:
    """Within the rounding of a float32 sum: terms * eps of the summed magnitudes ``of``."""
    bound = (terms + 4) * EPS * of
    assert ((got.double() - exact.double()).abs() <= bound).all()


@pytest.mark.parametrize("options", CONFIGS, ids=str)
@pytest.mark.parametrize("act_bits", ACT_BITS)
@pytest.mark.parametrize("shape", [(5,), (2, 3)])
def test_forward_and_gradient_are_the_plain_straight_through_ones(act_bits, options, shape):
    layer = layer_of(act_bits, **options)
    x = inputs(*shape).requires_grad_()
    y = layer(x)
    y.square().sum().backward()
    exact, grad_x, grad_w, grad_bias = by_hand(layer, x.detach(), act_bits)
    w, rows = layer.quantized_weight().detach().abs(), x.detach().abs().flatten(0, -2)
    # a rounded token is no larger than 2 * max abs x in any element
    largest = 2 * rows.amax(-1, keepdim=True).expand_as(rows)
    sums = (largest @ w.T + layer.bias.detach().abs()).view(exact.shape)
    near(y.detach(), exact, sums, 24)
    # y twice in each: the error of y itself, and the products' own
    outer = 2 * sums.flatten(0, -2)
    near(x.grad, grad_x, (outer @ w).view(x.shape), 2 * 24 + 6)
    near(layer.weight.grad, grad_w, outer.T @ largest, 2 * 24 + len(rows))
    near(layer.bias.grad, grad_bias, outer.sum(0), 2 * 24 + len(rows))


def test_one_bit_lets_the_gradient_pass_up_to_its_scale():
    layer = layer_of(1, bias=False, bits=2)
    x = torch.ones(1, 24)
    x[0, 0], x[0, 1] = 25.0, -3.0  # mean abs x is 50 / 24
    x.requires_grad_()
    layer(x).sum().backward()
    straight = layer.quantized_weight().detach().sum(0)
    assert x.grad[0, :2].tolist() == [0, 0]
    torch.testing.assert_close(x.grad[0, 2:], straight[2:])


def test_the_forward_multiplies_integers(monkeypatch):
    """The codes of both factors reach probe_matmul; no gradient, then no values either."""
    layer, seen = layer_of(8, bits=2), []
    real = fk.probe_matmul
    monkeypatch.setattr(fk, "probe_matmul", lambda *a, **k: seen.append(a[:2]) or real(*a, **k))
    monkeypatch.setattr(fk, "fake_quantize", None)
    with torch.no_grad():
        y = layer(inputs(5))
    (x_codes, codes) = seen[0]
    assert (x_codes.dtype, codes.dtype) == (torch.int8, torch.uint8)
    assert torch.equal(codes, fk.quantize(layer.weight.detach(), layer.scale, layer.grid))
    assert y.shape == (5, 6)


@pytest.mark.parametrize("frozen", ["weight", "bias", "x"])
def test_what_is_frozen_gets_no_gradient(frozen):
    layer, x = layer_of(8, bits=2), inputs(5)
    layer(x.requires_grad_()).sum().backward()
    full = {"weight": layer.weight.grad, "bias": layer.bias.grad, "x": x.grad}
    layer.zero_grad()
    x.grad = None
    tensors = {"weight": layer.weight, "bias": layer.bias, "x": x}
    tensors[frozen].requires_grad_(False)
    layer(x).sum().backward()
    for name, tensor in tensors.items():
        assert tensor.grad is None if name == frozen else torch.equal(tensor.grad, full[name])


@pytest.mark.parametrize("act_bits", ACT_BITS)
def test_a_layer_without_a_bias_and_a_single_token(act_bits):
    layer, x = layer_of(act_bits, bias=False, bits=2), inputs(3)[1]
    y = layer(x)
    assert y.shape == (6,)
    assert torch.equal(y, layer(x[None])[0])
    assert layer(x[None][:0]).shape == (0, 6)


@pytest.mark.parametrize("act_bits", ACT_BITS)
def test_autocast_gives_its_dtype_and_its_gradients(act_bits):
    layer, x = layer_of(act_bits, bits=2), inputs(5).requires_grad_()
    plain = layer(x)
    plain.sum().backward()
    want = [x.grad.clone(), layer.weight.grad.clone(), layer.bias.grad.clone()]
    x.grad = None
    layer.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = layer(x)
    assert torch.equal(y, plain.bfloat16())
    y.sum(dtype=torch.float32).backward()
    # W^, x^ and the incoming gradient (1, exact) are rounded once to 8 bits, and so is the result
    for got, exact in zip([x.grad, layer.weight.grad, layer.bias.grad], want, strict=True):
        assert got.dtype is torch.float32
        scale = exact.abs().amax()
        assert (got - exact).abs().amax() <= 2**-6 * scale
    halves = inputs(5).bfloat16()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(layer(halves), layer(halves.float()))


def test_other_dtypes_are_refused():
    layer = layer_of(8, bits=2)
    for dtype, name in ((torch.bfloat16, "bfloat16"), (torch.float64, "float64")):
        text = f"QuantLinear: x has dtype {name}, expected float32, or a half under autocast"
        with pytest.raises(TypeError, match=text):
            layer(inputs(5).to(dtype))
    text = r"x has shape \(2, 23\), expected \(\.\.\., 24\) to match codes"
    with pytest.raises(ValueError, match=text):
        layer(torch.zeros(2, 23))


def test_inputs_that_are_no_numbers_stay_visible():
    layer, x = layer_of(8, bits=2), inputs(5)
    x[1, 3], x[2, 4] = float("nan"), float("inf")
    y = layer(x)
    assert y[1].isnan().all()
    assert y[2].isnan().all()
    assert y[[0, 3, 4]].isfinite().all()


def test_a_dynamic_scale_is_refreshed():
    layer = layer_of(8, grid="ternary", scale="absmean")
    x = inputs(5)
    layer(x)
    before = layer.scale.clone()
    with torch.no_grad():
        layer.weight.mul_(2)
    loss = layer(x).sum() + layer(2 * x).sum()
    loss.backward()
    assert torch.equal(layer.scale, 2 * before)


def test_state_copies_summary_and_text():
    layer = layer_of(8, bits=2)
    assert list(layer.state_dict()) == ["weight", "bias", "scale"]
    x = inputs(5)
    other = QuantLinear(24, 6, config=QuantConfig(bits=2, act_bits=8))
    other.load_state_dict(layer.state_dict())
    assert torch.equal(other(x), layer(x))
    assert torch.equal(copy.deepcopy(layer)(x), layer(x))
    assert repr(layer).endswith("surrogate=clipped, act_bits=8)")
    assert torch.equal(
        layer.to_linear(quantized=True)(x), F.linear(x, layer.quantized_weight(), layer.bias)
    )
    model = nn.Sequential(nn.Linear(8, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    for name, bits in (("0", 8), ("1", 1)):
        fogzo.quantize_(model, QuantConfig(act_bits=bits), lambda m, fqn, name=name: fqn == name)
    rows = {row.name: row.inputs for row in fogzo.summary(model).rows}
    assert rows == {
        **dict.fromkeys(("0.bias", "1.bias", "2.weight", "2.bias"), ""),
        "0.weight": "8 bits",
        "1.weight": "1 bit",
    }
    assert "bytes  inputs  why float" in str(fogzo.summary(model))


@pytest.mark.parametrize("act_bits", ACT_BITS)
def test_such_a_layer_compiles_whole(act_bits):
    layer = layer_of(act_bits, bits=2)
    torch._dynamo.reset()
    run = torch.compile(layer, fullgraph=True, backend="aot_eager")
    for rows in (3, 5, 7):
        seen = []
        for forward in (layer, run):
            layer.zero_grad()
            x = inputs(2, rows).requires_grad_()
            y = forward(x)
            y.square().sum().backward()
            seen.append([y.detach(), x.grad, *(p.grad for p in layer.parameters())])
        for got, want in zip(*seen, strict=True):
            assert torch.equal(got, want)
