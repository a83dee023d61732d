"""Convolutions of one and two dimensions whose forward uses the quantized weight."""

from __future__ import annotations

import math
from typing import Any, Literal, Self, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from fogzo_kernels import _check

from ..autograd import integer_linear, rotate
from .coded_weight import CodedWeight
from .config import QuantConfig, given_config
from .quant_layer import QuantLayer, become_quantized

Size = int | tuple[int, ...]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


class QuantConv(QuantLayer, _ConvNd):
    """What QuantConv1d and QuantConv2d share: see them.

    Float inputs meet the values of Q(W) in torch's own convolution: in a probe too, where the
    packed codes of one side become values for the time of one layer. Integers (``act_bits``, int8
    probes) and rotated weights ("quest") are multiplied patch by patch: the padded input is
    unfolded, and a patch, what one output position of one group sees, is a row: one token, with a
    scale of its own.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: PaddingMode = "zeros",
        config: QuantConfig | None = None,
        device: Any = None,
    ) -> None:
        kind = type(self)
        config = given_config(kind.__name__, config)
        own: Any = kind.float_class
        own.__init__(
            self, in_channels, out_channels, kernel_size, stride, padding, dilation, groups, bias,
            padding_mode, device=device, dtype=torch.float32,
        )  # fmt: skip
        become_quantized(self, kind, config)

    @classmethod
    def from_conv(cls, conv: _ConvNd, config: QuantConfig | None = None) -> Self:
        """A quantized layer that shares the parameters (and hooks) of ``conv``.

        Args, Returns, Raises: as QuantLinear.from_linear's, of an nn.Conv1d (nn.Conv2d).
        """
        return cls._from_float("from_conv", conv, config)

    def to_conv(self, quantized: bool = False) -> _ConvNd:
        """Torch's layer with the latent weight (shared), or with a copy of Q(W).

        Args, Returns, Raises: as QuantLinear.to_linear's.
        """
        return cast(_ConvNd, self._to_float(quantized))

    def _of_values(self, x: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """The convolution with W as rows [N, K], or in its own shape."""
        y: Tensor = self._conv_forward(x, values.view(self.weight.shape), bias)
        return y

    def forward(self, x: Tensor) -> Tensor:
        """x [B, C, ...] or [C, ...] -> the convolution's output, as torch shapes it."""
        state = self.__dict__
        if not state["enabled"]:
            state["_was_read"] = True
            return self._of_values(x, self.weight, self._bias())
        bits, probe = state["config"].act_bits, state["_probe_weight"]
        if bits is None and isinstance(probe, CodedWeight):
            bits = probe.act_bits
        if bits is None and not state["_rotates"]:
            bias = self._bias()
            if isinstance(probe, CodedWeight) and not torch.is_grad_enabled():
                state["_was_read"] = True
                return probe.product(x, bias, self._of_values)
            return self._of_values(x, self.quantized_weight(), bias)
        channels, dims = self.in_channels, self.weight.dim()
        if x.dim() not in (dims - 1, dims) or x.shape[1 - dims] != channels:
            op, expected = type(self).__name__, f"[B, {channels}, ...] or [{channels}, ...]"
            _check.fail(op, "x", f"has shape {tuple(x.shape)}", f"{expected} of {dims} dimensions")
        batched = x.dim() == dims
        y = self._of_patches(x if batched else x.unsqueeze(0), bits)
        return y if batched else y.squeeze(0)

    def _of_patches(self, x: Tensor, bits: int | None) -> Tensor:
        """[B, C, ...] -> [B, out_channels, ...], group by group, from rows [B * L, K]."""
        dtype, bias = self._result_dtype(x), self._bias()
        patches, size = self._patches(x)
        probe = self._probe_weight
        coded: CodedWeight | None = None
        values: Tensor | None = None
        if bits is not None:
            coded, values = self._codes()
        elif isinstance(probe, CodedWeight) and not torch.is_grad_enabled():
            self.__dict__["_was_read"] = True
            coded = probe
        else:
            values = self.quantized_weight()
        values = None if values is None else values.flatten(1)
        width, outputs = self.weight[0].numel(), self.out_channels // self.groups
        parts = []
        for group in range(self.groups):
            rows = patches[:, :, group * width : (group + 1) * width].reshape(-1, width)
            rows = rotate(rows.float()) if self._rotates else rows
            own = slice(group * outputs, (group + 1) * outputs)
            of_group = None if bias is None else bias[own]
            weight = None if values is None else values[own]
            if coded is None:
                parts.append(F.linear(rows, cast(Tensor, weight), of_group))
                continue
            part = coded.part(own.start, own.stop)
            if bits is None:
                parts.append(part.product(rows, of_group))
                continue
            rows = rows if rows.dtype is torch.bfloat16 else rows.float()
            of_weight = (part.codes, part.scale, part.grid)
            parts.append(integer_linear(rows, weight, of_group, *of_weight, bits, dtype))
        y = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        by_patch = y.view(len(x), math.prod(size), self.out_channels)
        return by_patch.transpose(1, 2).reshape(len(x), self.out_channels, *size)

    def _patches(self, x: Tensor) -> tuple[Tensor, tuple[int, ...]]:
        """[B, L, groups * K], one row a patch, and the output's sizes; L is their product."""
        mode = "constant" if self.padding_mode == "zeros" else self.padding_mode
        if any(self._reversed_padding_repeated_twice):
            x = F.pad(x, self._reversed_padding_repeated_twice, mode=mode)
        options = (self.kernel_size, self.dilation, self.stride)
        spans = zip(x.shape[2:], *options, strict=True)
        size = tuple((n - d * (k - 1) - 1) // s + 1 for n, k, d, s in spans)
        if x.dim() == 3:  # one dimension is two with a height of 1
            x = x.unsqueeze(2)
            options = cast(Any, tuple((1, *option) for option in options))
        kernel, dilation, stride = options
        patches = F.unfold(x, kernel, dilation=dilation, stride=stride)  # [B, groups * K, L]
        return patches.transpose(1, 2), size


class QuantConv1d(QuantConv, nn.Conv1d):
    """An nn.Conv1d that convolves with Q(W), W viewed as [out_channels, in/groups * k].

    Args:
        in_channels, out_channels: C and N >= 1; x is float32 [B, C, L] or [C, L].
        kernel_size, stride, dilation: an int or a tuple of one >= 1, in elements of x.
        padding: an int or a tuple of one >= 0 on each side, "valid" (0) or "same" (stride 1 alone).
        groups: divides both channels; an output sees in_channels / groups.
        bias: whether there is one, float32 [N].
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of weight, bias and scale.
        config: grid, scale rule and surrogate, as for QuantLinear. ``granularity="group"``:
            group_size divides in_channels / groups * k. ``act_bits``: a token is one patch, the
            inputs that one output position of one convolution group sees.

    Raises:
        ValueError, TypeError, RuntimeError: as QuantLinear's, nn.Conv1d's own, and (in forward) an
            x of another number of dimensions or channels.

    Example:
        >>> QuantConv1d(4, 6, 3, padding=1)(torch.zeros(2, 4, 8)).shape
        torch.Size([2, 6, 8])

    Source: as QuantLinear's; that a token is a patch is ours.
    """

    float_class = nn.Conv1d


class QuantConv2d(QuantConv, nn.Conv2d):
    """An nn.Conv2d that convolves with Q(W), W viewed as [out_channels, in/groups * kh * kw].

    Args:
        in_channels, out_channels: C and N >= 1; x is float32 [B, C, H, W] or [C, H, W].
        kernel_size, stride, dilation: an int or a tuple of two >= 1, in elements of x.
        padding: an int or a tuple of two >= 0 on each side, "valid" (0) or "same" (stride 1 alone).
        groups: divides both channels; an output sees in_channels / groups.
        bias: whether there is one, float32 [N].
        padding_mode: "zeros", "reflect", "replicate" or "circular".
        device: of weight, bias and scale.
        config: as QuantConv1d's.

    Raises:
        ValueError, TypeError, RuntimeError: as QuantConv1d's.

    Example:
        >>> QuantConv2d(4, 6, 3, padding="same")(torch.zeros(2, 4, 8, 8)).shape
        torch.Size([2, 6, 8, 8])

    Source: as QuantConv1d's.
    """

    float_class = nn.Conv2d
