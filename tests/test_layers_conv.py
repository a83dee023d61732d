"""QuantConv1d and QuantConv2d: every option of torch's, integers and rotations patch by patch."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import QuantConfig, QuantConv1d, QuantConv2d

# torch's options: kernel, stride, padding, dilation, groups, bias, padding_mode
OPTIONS = [
    {"kernel_size": 1},
    {"kernel_size": 3, "padding": 1},
    {"kernel_size": 3, "stride": 2, "padding": "valid", "dilation": 2, "bias": False},
    {"kernel_size": 4, "padding": "same", "groups": 2},
    {"kernel_size": 3, "padding": 2, "padding_mode": "circular"},
    {"kernel_size": 2, "padding": 1, "padding_mode": "reflect", "stride": 2},
    {"kernel_size": 3, "padding": "same", "padding_mode": "replicate", "groups": 4, "dilation": 2},
]
UNEVEN = {"kernel_size": (3, 2), "stride": (1, 2), "padding": (2, 0), "dilation": (1, 2)}
CONFIGS = [
    QuantConfig(bits=2),
    QuantConfig(grid="ternary", scale="absmean", granularity="tensor"),
    QuantConfig(bits=3, scale="lsq", granularity="group", group_size=2),
]


def pair(dims: int, config: QuantConfig, options: dict) -> tuple[nn.Module, nn.Module, Tensor]:
    """A float convolution, its quantized twin, and an input."""
    torch.manual_seed(0)
    conv = (nn.Conv1d, nn.Conv2d)[dims - 1](4, 8, **options)
    layer = (QuantConv1d, QuantConv2d)[dims - 1].from_conv(conv, config)
    size = (9,) if dims == 1 else (9, 8)
    return conv, layer, torch.randn(3, 4, *size)


CASES = [(d, o) for d in (1, 2) for o in OPTIONS] + [(2, UNEVEN)]


@pytest.mark.parametrize(("dims", "options"), CASES, ids=str)
@pytest.mark.parametrize("config", CONFIGS, ids=lambda c: c.scale)
def test_it_is_torchs_convolution_with_the_quantized_weight(config, dims, options):
    if config.granularity == "group" and options.get("groups") == 4:  # one channel: an odd width
        config = QuantConfig(bits=3, scale="lsq", granularity="group", group_size=3)
    conv, layer, x = pair(dims, config, options)
    x.requires_grad_()
    rows = conv.weight.detach().flatten(1)
    rule = (config.scale, config.granularity, config.group_size)
    scale = fk.compute_scale(rows, layer.grid, *rule)
    values = fk.fake_quantize(rows, scale, layer.grid).view(conv.weight.shape)
    twin = copy.deepcopy(conv)
    twin.weight = nn.Parameter(values)
    y, wanted = layer(x), twin(x)
    assert torch.equal(y, wanted)
    assert torch.equal(layer(x[0]), twin(x[0]))
    assert torch.equal(layer.to_conv(quantized=True)(x), wanted)
    assert layer.to_conv().weight is conv.weight
    y.square().sum().backward()
    got = x.grad.clone()
    x.grad = None
    wanted.square().sum().backward()
    assert torch.equal(got, x.grad)
    grad_w, grad_scale = fk.fake_quantize_backward(
        twin.weight.grad.flatten(1), rows, scale, layer.grid
    )
    assert torch.equal(layer.weight.grad, grad_w.view(conv.weight.shape))
    if config.scale == "lsq":
        assert torch.equal(layer.scale.grad, grad_scale)


class Rounded(torch.autograd.Function):
    """Tokens of DESIGN section 2 in float64, straight through (1 bit: hardtanh)."""

    @staticmethod
    def forward(ctx, x, bits):
        if bits == 1:
            a = x.abs().mean(-1, keepdim=True)
            ctx.save_for_backward(x.abs() <= a)
            return torch.where(x >= 0, a, -a)
        q = 2 ** (bits - 1) - 1
        a = x.abs().amax(-1, keepdim=True) / q
        ctx.save_for_backward(torch.ones_like(x, dtype=torch.bool))
        return (x / a).round().clamp(-q, q).nan_to_num(0) * a

    @staticmethod
    def backward(ctx, grad):
        return grad * ctx.saved_tensors[0], None


def by_hand(conv: nn.Module, values: Tensor, x: Tensor, bits: int | None, h: Tensor | None):
    """Every output from its own patch, cut out by hand, in float64."""
    x, two = x.double(), isinstance(conv, nn.Conv2d)
    mode = "constant" if conv.padding_mode == "zeros" else conv.padding_mode
    x = F.pad(x, conv._reversed_padding_repeated_twice, mode=mode)
    x = x if two else x[:, :, None]
    kernel, stride, dilation = (
        o if two else (1, *o) for o in (conv.kernel_size, conv.stride, conv.dilation)
    )
    height, width = (
        (n - d * (k - 1) - 1) // s + 1
        for n, k, s, d in zip(x.shape[2:], kernel, stride, dilation, strict=True)
    )
    spans = [d * (k - 1) + 1 for k, d in zip(kernel, dilation, strict=True)]
    outputs, inputs = conv.out_channels // conv.groups, conv.in_channels // conv.groups
    columns = []
    for group in range(conv.groups):
        part = x[:, group * inputs : (group + 1) * inputs]
        rows = torch.stack(
            [
                part[
                    :,
                    :,
                    i * stride[0] : i * stride[0] + spans[0] : dilation[0],
                    j * stride[1] : j * stride[1] + spans[1] : dilation[1],
                ].flatten(1)
                for i in range(height)
                for j in range(width)
            ],
            1,
        )
        rows = rows if h is None else rows @ h
        rows = rows if bits is None else Rounded.apply(rows, bits)
        own = slice(group * outputs, (group + 1) * outputs)
        bias = None if conv.bias is None else conv.bias[own].double()
        columns.append(F.linear(rows, values[own].flatten(1).double(), bias))
    y = torch.cat(columns, 2).transpose(1, 2)
    return y.reshape(len(x), conv.out_channels, *((height, width) if two else (width,)))


@pytest.mark.parametrize(("dims", "options"), CASES, ids=str)
@pytest.mark.parametrize("how", ["8", "4", "2", "1", "quest", "quest 4"])
def test_integers_and_rotations_work_on_patches(how, dims, options):
    bits = int(how[-1]) if how[-1].isdigit() else None
    scale = "quest" if "quest" in how else "fixed"
    conv, layer, x = pair(dims, QuantConfig(bits=2, scale=scale, act_bits=bits), options)
    x.requires_grad_()
    width = conv.weight[0].numel()
    h = fk.hadamard(torch.eye(width)).double() if scale == "quest" else None
    y = layer(x)
    values = layer.quantized_weight().detach().requires_grad_()
    exact = by_hand(conv, values, x, bits, h)
    largest = exact.abs().amax().item()
    torch.testing.assert_close(y.double(), exact, rtol=0, atol=2.0**-20 * largest)
    assert torch.equal(layer(x[0]), y[0])
    g = torch.randn(y.shape, generator=torch.Generator().manual_seed(1))
    (y * g).sum().backward()
    got = x.grad.clone()
    x.grad = None
    (exact * g.double()).sum().backward()
    torch.testing.assert_close(got, x.grad, rtol=0, atol=2.0**-19 * got.abs().amax().item())
    rows = layer.probe_space(conv.weight.detach())
    grad_w, _ = fk.fake_quantize_backward(
        values.grad.flatten(1), rows, layer.scale, layer.grid, layer.surrogate
    )
    wanted = layer.from_probe_space(grad_w)
    atol = 2.0**-19 * wanted.abs().amax().item()
    torch.testing.assert_close(layer.weight.grad, wanted, rtol=0, atol=atol)


@pytest.mark.parametrize("dims", [1, 2])
@pytest.mark.parametrize("how", ["fixed", "8", "quest", "quest 4"])
def test_a_batch_may_be_empty(how, dims):
    bits = int(how.split()[-1]) if how[-1].isdigit() else None
    config = QuantConfig(bits=2, scale="quest" if "quest" in how else "fixed", act_bits=bits)
    conv, layer, x = pair(dims, config, OPTIONS[3])
    assert layer(x[:0]).shape == conv(x[:0]).shape
    layer(x[:0]).sum().backward()
    assert not layer.weight.grad.any()


def test_state_text_and_refusals():
    layer = QuantConv2d(4, 8, 3, padding="same", config=QuantConfig(bits=2, act_bits=4))
    assert list(layer.state_dict()) == ["weight", "bias", "scale"]
    assert "kernel_size=(3, 3)" in repr(layer)
    assert repr(layer).endswith("surrogate=clipped, act_bits=4)")
    text = "QuantConv1d.from_conv: conv is a Conv2d, expected an nn.Conv1d"
    with pytest.raises(TypeError, match=text):
        QuantConv1d.from_conv(nn.Conv2d(4, 8, 3))
    with pytest.raises(ValueError, match="group_size is 5, which does not divide the 36 inputs"):
        QuantConv2d(4, 8, 3, config=QuantConfig(granularity="group", group_size=5))
    with pytest.raises(TypeError, match="QuantConv2d: x has dtype float64, expected float32"):
        layer(torch.zeros(1, 4, 5, 5, dtype=torch.float64))
    for shape in ((1, 8, 5, 5), (8, 5, 5), (5, 5), (1, 4, 5)):
        text = rf"x has shape \({shape[0]}, .*expected \[B, 4, \.\.\.\] or \[4, \.\.\.\] of 4 dim"
        with pytest.raises(ValueError, match=text):
            layer(torch.zeros(shape))


def test_quantize_takes_convolutions_and_says_what_it_leaves():
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv1d(4, 4, 1), nn.ConvTranspose2d(4, 3, 2)
    )
    first = model[0]
    fogzo.quantize_(model, QuantConfig(bits=2))
    assert model[0] is first
    assert [type(m).__name__ for m in model] == [
        "QuantConv2d", "BatchNorm2d", "QuantConv1d", "ConvTranspose2d",
    ]  # fmt: skip
    rows = {row.name: row for row in fogzo.summary(model).rows}
    assert rows["0.weight"].bytes == 4 * 7 + 4 * 4  # 27 codes of 2 bits in 7 bytes, 4 scales
    assert rows["3.weight"].why == (
        "ConvTranspose2d: only the weight of nn.Linear, nn.Conv1d, nn.Conv2d or nn.Embedding is "
        "quantized"
    )
