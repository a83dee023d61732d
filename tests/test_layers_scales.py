"""lsq, quest and stretched: each formula against float64, their state, and act_bits with them."""

from __future__ import annotations

import copy
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import QuantConfig, QuantLinear

EPS = 2.0**-23
GRIDS = [("sign", None), ("ternary", None), ("mid-tread", 3), ("mid-rise", 2), ("mid-rise", 4)]
GRANULARITIES = [("tensor", None), ("channel", None), ("group", 4)]
MID_RISE_MULTIPLE, TERNARY_MULTIPLE = 0.9957, 1.224  # DESIGN section 2


def layer_of(rows: int = 6, cols: int = 8, seed: int = 0, **options: object) -> QuantLinear:
    torch.manual_seed(seed)
    return QuantLinear(cols, rows, config=QuantConfig(**options))


def wide(layer: QuantLinear) -> None:
    """Weights in and out of the grid's range, and a gradient for each in the result."""
    with torch.no_grad():
        generator = torch.Generator().manual_seed(7)
        layer.weight.copy_(2 * torch.randn(layer.weight.shape, generator=generator))


def value64(x: np.ndarray, kind: str, bits: int | None) -> np.ndarray:
    """DESIGN's table of grids."""
    if kind == "sign":
        return np.where(x >= 0, 1.0, -1.0)
    if kind == "ternary":
        return np.clip(np.rint(x), -1, 1)
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    if kind == "mid-tread":
        return np.clip(np.rint(x), low, high)
    return np.clip(np.rint(x - 0.5), low, high) + 0.5


def bounds(kind: str, bits: int | None) -> tuple[float, float]:
    if kind in ("sign", "ternary"):
        return -1.0, 1.0
    half = 0.5 if kind == "mid-rise" else 0.0
    return -(2 ** (bits - 1)) + half, 2 ** (bits - 1) - 1 + half


def spread(scale: Tensor, w: np.ndarray) -> np.ndarray:
    a = scale.detach().double().numpy()
    if a.ndim == 3:
        return np.repeat(a[..., 0], w.shape[1] // a.shape[1], axis=1)
    return np.broadcast_to(a, w.shape)


def by_scale(terms: np.ndarray, scale: Tensor) -> np.ndarray:
    return terms.reshape(scale.numel(), -1).sum(1).reshape(tuple(scale.shape))


def given_gradient(layer: QuantLinear) -> np.ndarray:
    """Backward of sum(g * Q(W)) for a g of normal numbers, which is returned."""
    g = torch.randn(layer.weight.shape, generator=torch.Generator().manual_seed(3))
    (layer.quantized_weight() * g).sum().backward()
    return g.double().numpy()


def positive_levels(kind: str, bits: int | None) -> int:
    return 1 if kind in ("sign", "ternary") else max(1, 2 ** (bits - 1) - 1)


@pytest.mark.parametrize(("granularity", "size"), GRANULARITIES)
@pytest.mark.parametrize(("kind", "bits"), GRIDS)
def test_lsq_equals_float64(kind, bits, granularity, size):
    named = {"granularity": granularity, "group_size": size}
    layer = layer_of(grid=kind, bits=bits, scale="lsq", **named)
    w = layer.weight.detach().double().numpy()
    q_p = positive_levels(kind, bits)
    elements = np.abs(w).reshape(layer.scale.numel(), -1).mean(1)
    begin = elements * (1 if kind == "sign" else 2 / math.sqrt(q_p))
    assert isinstance(layer.scale, nn.Parameter)
    np.testing.assert_allclose(layer.scale.detach().numpy().ravel(), begin, rtol=EPS)

    wide(layer)
    w = layer.weight.detach().double().numpy()
    a = spread(layer.scale, w)
    x, (low, high) = w / a, bounds(kind, bits)
    v = value64(x, kind, bits)
    got = layer.quantized_weight().detach().numpy()
    np.testing.assert_allclose(got, a * v, rtol=EPS)
    g = given_gradient(layer)
    inside = (x >= low) & (x <= high)
    assert inside.any()
    assert (~inside).any()
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.where(inside, g, 0))
    t = np.where(inside, v - x, v)
    root = math.sqrt(w.size * q_p)
    # x is rounded twice in float32
    slack = 3 * EPS * by_scale(np.abs(g * x), layer.scale) / root
    error = np.abs(layer.scale.grad.numpy() - by_scale(g * t, layer.scale) / root)
    assert (error <= slack + EPS * np.abs(layer.scale.grad.numpy())).all()


def test_an_lsq_scale_below_its_floor_counts_as_the_floor_and_gets_no_gradient():
    layer = layer_of(bits=2, scale="lsq")
    with torch.no_grad():
        layer.scale[0], layer.scale[1], layer.scale[2] = 1e-6, -3.0, 1e-5
    given_gradient(layer)
    floored = layer.quantized_weight().detach()[:3].abs().amax(1)
    torch.testing.assert_close(floored, torch.full((3,), 1.5e-5))
    assert layer.scale.grad[:2].tolist() == [[0.0], [0.0]]
    assert (layer.scale.grad[2:] != 0).all()
    assert torch.equal(layer.frozen_scale()[:2], torch.full((2, 1), 1e-5))


@pytest.mark.parametrize("rule", ["lsq", "stretched"])
def test_a_learned_scale_that_is_no_number_stays_visible(rule):
    layer = layer_of(bits=2, scale=rule)
    learned = layer.scale if rule == "lsq" else layer.alpha
    with torch.no_grad():
        learned[1] = float("nan")
    with pytest.raises(ValueError, match="scale"):
        layer(torch.zeros(1, 8))


@pytest.mark.parametrize(("granularity", "size"), GRANULARITIES)
@pytest.mark.parametrize(("kind", "bits"), [("ternary", None), ("mid-rise", 2), ("mid-rise", 4)])
def test_stretched_equals_float64(kind, bits, granularity, size):
    """ParetoQ's formulas in its own terms: alpha, n levels a side, everything over alpha."""
    named = {"granularity": granularity, "group_size": size}
    layer = layer_of(grid=kind, bits=bits, scale="stretched", **named)
    n, shift = (1.5, 0.0) if kind == "ternary" else (2.0 ** (bits - 1), 0.5)
    largest = np.abs(layer.weight.detach().numpy()).reshape(layer.alpha.numel(), -1).max(1)
    np.testing.assert_allclose(layer.alpha.detach().numpy().ravel(), largest, rtol=EPS)
    if kind == "mid-rise":
        assert np.array_equal(layer.alpha.detach().numpy().ravel(), largest)

    with torch.no_grad():
        layer.alpha.mul_(0.6)  # some weights lie outside now
        # between the published clip and the grid's highest value, and beyond the clip
        layer.weight[0, 0] = 0.985 * layer.alpha.flatten()[0]
        layer.weight[0, 1] = 0.995 * layer.alpha.flatten()[0]
    w = layer.weight.detach().double().numpy()
    alpha = spread(layer.alpha, w)
    r = w / alpha
    q = (np.rint(np.clip(r, -0.99, 0.99) * n - shift) + shift) / n
    np.testing.assert_allclose(layer.quantized_weight().detach().numpy(), alpha * q, rtol=3 * EPS)
    g = given_gradient(layer)
    inside = np.abs(r) <= 0.99
    assert inside[0, 0]
    assert not inside[0, 1]
    np.testing.assert_array_equal(layer.weight.grad.numpy(), np.where(inside, g, 0))
    # beyond the clip q is the highest value, (n - 1/2) / n; the published code has 1 there for
    # ternary, where what W^ does is 2/3
    t = np.where(inside, q - r, np.sign(r) * (2 / 3 if kind == "ternary" else (n - 0.5) / n))
    root = math.sqrt(w.size * positive_levels(kind, bits))
    slack = 4 * EPS * by_scale(np.abs(g * r), layer.alpha) / root
    error = np.abs(layer.alpha.grad.numpy() - by_scale(g * t, layer.alpha) / root)
    assert (error <= slack + 2 * EPS * np.abs(layer.alpha.grad.numpy())).all()
    np.testing.assert_allclose(
        layer.scale.numpy(), layer.alpha.detach().numpy() / np.float32(n), rtol=EPS
    )


def test_a_stretched_range_below_its_floor_can_come_back():
    layer = layer_of(bits=2, scale="stretched")
    with torch.no_grad():
        layer.alpha[0] = -1.0
    given_gradient(layer)
    assert layer.scale[0].item() == pytest.approx(1e-5 / 2)
    assert layer.alpha.grad[0].item() != 0


def hadamard64(width: int) -> np.ndarray:
    """Blocks of 128, then the remainder's powers of two, largest first."""
    sizes = [128] * (width // 128)
    sizes += [1 << b for b in range(6, -1, -1) if (width % 128) >> b & 1]
    matrix, at = np.zeros((width, width)), 0
    for m in sizes:
        i = np.arange(m)
        signs = 1 - 2 * (np.bitwise_count(i[:, None] & i) % 2).astype(np.float64)
        matrix[at : at + m, at : at + m] = signs / math.sqrt(m)
        at += m
    return matrix


@pytest.mark.parametrize("width", [8, 203])
@pytest.mark.parametrize(("kind", "bits"), [("mid-rise", 2), ("ternary", None)])
def test_quest_equals_float64(kind, bits, width):
    layer = layer_of(5, width, grid=kind, bits=bits, scale="quest")
    assert layer.surrogate == "trust"
    h = hadamard64(width)
    w = layer.weight.detach().double().numpy() @ h
    multiple = MID_RISE_MULTIPLE if kind == "mid-rise" else TERNARY_MULTIPLE
    a = multiple * np.sqrt((w**2).mean(1, keepdims=True))
    x = torch.randn(7, width, generator=torch.Generator().manual_seed(1)).requires_grad_()
    v = value64(w / a, kind, bits)
    y = layer(x)
    np.testing.assert_allclose(layer.scale.numpy(), a, rtol=8 * EPS)
    np.testing.assert_allclose(layer.quantized_weight().detach().numpy(), a * v, rtol=9 * EPS)
    bias = layer.bias.detach().double().numpy()
    exact = x.detach().double().numpy() @ h @ (a * v).T + bias
    h32, w32 = torch.from_numpy(h).float(), torch.from_numpy(a * v).float()
    near(y, exact, F.linear(x.detach() @ h32, w32, layer.bias.detach()))
    g = torch.randn(7, 5, generator=torch.Generator().manual_seed(2))
    (y * g).sum().backward()
    mask = np.abs(v - w / a) <= 0.5
    assert mask.any()
    assert (~mask).any()
    wanted = ((g.double().numpy().T @ (x.detach().double().numpy() @ h)) * mask) @ h
    mask32 = torch.from_numpy(mask)
    near(layer.weight.grad, wanted, ((g.T @ (x.detach() @ h32)) * mask32) @ h32)
    near(x.grad, g.double().numpy() @ (a * v) @ h, g @ w32 @ h32)


def near(got: Tensor, exact: np.ndarray, reference: Tensor) -> None:
    """At most twice the error of the same sum by float32 matrices, and an ulp of the largest."""
    own = np.abs(reference.double().numpy() - exact).max()
    assert (
        np.abs(got.detach().double().numpy() - exact).max() <= 2 * own + EPS * np.abs(exact).max()
    )


def test_quest_rotates_back_for_a_float_layer():
    layer = layer_of(5, 24, bits=4, scale="quest")
    x = torch.randn(3, 24)
    torch.testing.assert_close(layer.to_linear(quantized=True)(x), layer(x))
    assert layer.to_linear().weight is layer.weight


@pytest.mark.parametrize("bits", [8, 4, 2, 1])
@pytest.mark.parametrize("rule", ["lsq", "quest", "stretched"])
def test_act_bits_quantize_the_tokens_of_the_products_own_space(rule, bits):
    """With quest the rotated input is rounded; scale and weight get the straight-through one."""
    layer = layer_of(5, 24, bits=2, scale=rule, act_bits=bits)
    x = torch.randn(7, 24, generator=torch.Generator().manual_seed(1)).requires_grad_()
    rows = x.detach().double()
    if rule == "quest":
        rows = rows @ torch.from_numpy(hadamard64(24))
    if bits == 1:
        a = rows.abs().mean(1, keepdim=True)
        rounded = torch.where(rows >= 0, a, -a)
    else:
        q = 2 ** (bits - 1) - 1
        a = rows.abs().amax(1, keepdim=True) / q
        rounded = (rows / a).round().clamp(-q, q) * a
    exact = F.linear(rounded, layer.quantized_weight().detach().double(), layer.bias.double())
    y = layer(x)
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2e-6)
    y.square().sum().backward()
    learned = layer.config.learned
    if learned is not None:
        assert layer._parameters[learned].grad.abs().sum() > 0
    assert layer.weight.grad.abs().sum() > 0
    assert x.grad.abs().sum() > 0


# ---- state


@pytest.mark.parametrize("rule", ["lsq", "stretched"])
def test_a_learned_scale_is_saved_and_begins_once(rule):
    layer = layer_of(bits=2, scale=rule)
    name = layer.config.learned
    with torch.no_grad():
        layer._parameters[name].mul_(3)
    before = layer._parameters[name].clone()
    layer(torch.zeros(1, 8))
    assert torch.equal(layer._parameters[name], before)
    state = copy.deepcopy(layer.state_dict())
    other = layer_of(bits=2, scale=rule, seed=1)
    same = other._parameters[name]
    other.load_state_dict(state)
    assert other._parameters[name] is same
    assert torch.equal(same, before)
    assert torch.equal(other.quantized_weight(), layer.quantized_weight())
    # a float checkpoint: from the loaded weight; one of another rule: too
    linear = nn.Linear(8, 6)
    assert name in other.load_state_dict(linear.state_dict(), strict=False).missing_keys
    fresh = QuantLinear.from_linear(linear, other.config)
    assert torch.equal(other._parameters[name], fresh._parameters[name])
    assert torch.equal(other.quantized_weight(), fresh.quantized_weight())


def test_a_stretched_layer_takes_a_checkpoint_of_another_rule():
    layer, other = layer_of(bits=2), layer_of(bits=2, scale="stretched", seed=1)
    other.load_state_dict(layer.state_dict(), strict=False)
    assert torch.equal(other.alpha.flatten(), layer.weight.detach().abs().amax(1))


def test_a_layer_made_without_memory_begins_with_the_checkpoint():
    linear = nn.Linear(8, 6)
    with torch.device("meta"):
        model = nn.Sequential(nn.Linear(8, 6))
    fogzo.quantize_(model, QuantConfig(bits=2, scale="lsq"))
    model.load_state_dict({"0." + k: v for k, v in linear.state_dict().items()}, False, True)
    wanted = QuantLinear.from_linear(linear, QuantConfig(bits=2, scale="lsq"))
    assert torch.equal(model[0].scale, wanted.scale)
    assert isinstance(model[0].scale, nn.Parameter)
    assert torch.equal(model[0].quantized_weight(), wanted.quantized_weight())


def test_summary_and_text_name_learned_scales():
    model = fogzo.quantize_(nn.Sequential(nn.Linear(8, 6)), QuantConfig(bits=2, scale="stretched"))
    rows = {row.name: row for row in fogzo.summary(model).rows}
    assert rows["0.weight"].scale == "stretched per channel"
    assert rows["0.alpha"].why == "alpha: learned, the weight's scale"
    # 6 rows of 2 bytes of codes and one scale, which is not counted a second time
    assert rows["0.weight"].bytes == 6 * 2 + 6 * 4
    assert str(fogzo.summary(model)).endswith("1 quantized (36 bytes), 2 float (24 bytes)")
    assert "scale=stretched per channel, surrogate=clipped" in repr(model)


def test_a_limit_is_for_the_clipped_surrogate():
    arrays = torch.ones(1, 4), torch.ones(1, 4), torch.tensor(1.0)
    for limit, surrogate in ((0.0, "clipped"), (1e-46, "clipped"), (1.5, "identity")):
        text = f"limit is {limit} with surrogate '{surrogate}', expected a float32 number over 0"
        with pytest.raises(ValueError, match=text):
            fk.fake_quantize_backward(*arrays, fk.Grid("ternary"), surrogate, limit=limit)
    with pytest.raises(ValueError, match="limit is -1.0, expected a float32 number over 0"):
        fk.fake_quantize_backward(*arrays, fk.Grid("ternary"), "clipped", limit=-1.0)
