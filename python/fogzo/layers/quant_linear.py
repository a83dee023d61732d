"""A linear layer whose forward multiplies by the quantized weight."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..autograd import coded_linear, fake_quantize, integer_linear
from .config import QuantConfig, given_config

M = TypeVar("M", bound=nn.Module)
HALVES = (torch.bfloat16, torch.float16)


class CodedWeight:
    """What stands for Q(W) where codes are multiplied: the codes, their scale and grid.

    Attributes:
        act_bits: of the inputs of layers that have no act_bits of their own; None: floats.
        as_values: whether float inputs are multiplied by float32 values, as W^ is without a probe.
        read_as_values: whether somebody asked for float32 values.
    """

    read_as_values = False

    def __init__(
        self,
        codes: Tensor | fk.Packed,
        scale: Tensor,
        grid: fk.Grid,
        act_bits: int | None,
        as_values: bool = False,
    ) -> None:
        self.codes, self.scale, self.grid, self.act_bits = codes, scale, grid, act_bits
        self.as_values = as_values

    def values(self) -> Tensor:
        """scale * value(codes), float32."""
        self.read_as_values = True
        values: Tensor = fk.dequantize(self.codes, self.scale, self.grid)
        return values


class QuantLinear(nn.Linear):
    """y = x^ @ Q(W).T + bias, with Q(W) = a * value(W / a); x^ is x, quantized for ``act_bits``.

    Args:
        in_features, out_features, bias, device: as nn.Linear's.
        config: grid, scale rule and surrogate; act_bits: each token of the input as integers times
            a scale, multiplied with the codes of the weight in integers. The gradient passes the
            rounding of the input unchanged (1 bit: where abs x <= its scale).

    Attributes:
        weight: latent weight W, float32 [out_features, in_features], the optimizer's parameter.
        scale: a, float32 buffer: () or [out_features, 1] or [out_features, groups, 1]. The dynamic
            rules (absmean, absmax) refresh it at every forward.
        grid: the values a weight may take. surrogate: its name. config: the QuantConfig.

    Its state_dict has nn.Linear's keys and ``scale``. A state_dict of a plain nn.Linear loads with
    ``strict=False``; a fixed scale is then computed from the loaded weight.

    Raises:
        ValueError, TypeError: a group_size that does not divide in_features, a half-precision
            weight.

    Example:
        >>> QuantLinear(4, 2, config=QuantConfig(bits=2))(torch.zeros(3, 4)).shape
        torch.Size([3, 2])
    """

    scale: Tensor
    config: QuantConfig
    grid: fk.Grid
    surrogate: str
    _probe_weight: Tensor | CodedWeight | None  # an estimator's: stands for Q(W) in one forward
    _was_read: bool  # an estimator's: Q(W) was asked for since it was last cleared

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        config: QuantConfig | None = None,
        device: Any = None,
    ) -> None:
        config = given_config("QuantLinear", config)
        super().__init__(in_features, out_features, bias=bias, device=device, dtype=torch.float32)
        become_quantized(self, config)

    @classmethod
    def from_linear(cls, linear: nn.Linear, config: QuantConfig | None = None) -> QuantLinear:
        """A quantized layer that shares the weight and bias parameters (and hooks) of ``linear``.

        Example:
            >>> QuantLinear.from_linear(linear).weight is linear.weight
            True
        """
        if type(linear) is not nn.Linear:
            got = f"is a {type(linear).__name__}"
            _check.fail("QuantLinear.from_linear", "linear", got, "an nn.Linear", TypeError)
        config = given_config("QuantLinear.from_linear", config)
        return become_quantized(_shallow_copy(linear), config)

    def to_linear(self, quantized: bool = False) -> nn.Linear:
        """An nn.Linear with this layer's latent weight (shared), or with a copy of Q(W).

        Its input stays float, whatever act_bits says.

        Args:
            quantized: False shares the latent parameter; True gives a new parameter holding Q(W).
        """
        linear = _shallow_copy(self)
        for name in ("config", "grid", "surrogate", "_probe_weight", "_was_read"):
            del linear.__dict__[name]
        del linear._buffers["scale"]
        linear.__class__ = nn.Linear  # type: ignore[assignment]
        if quantized:
            latent = self.weight
            values = self.quantized_weight().detach()
            linear.weight = nn.Parameter(values, requires_grad=latent.requires_grad)
        return linear

    def quantized_weight(self) -> Tensor:
        """Q(W), float32 [out_features, in_features]; its gradient reaches W by the surrogate."""
        state = self.__dict__
        state["_was_read"] = True
        probe: Tensor | CodedWeight | None = state["_probe_weight"]
        if probe is not None:
            return probe if isinstance(probe, Tensor) else probe.values()
        w = check_latent(state["_parameters"]["weight"], "QuantLinear")
        return fake_quantize(w, self._fresh_scale(w), self.grid, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., out_features]; under autocast in autocast's dtype."""
        state = self.__dict__
        bits, probe = state["config"].act_bits, state["_probe_weight"]
        if bits is None and isinstance(probe, CodedWeight):
            bits = probe.act_bits
            if bits is None and not torch.is_grad_enabled():
                return self._of_codes(x, probe)
        if bits is not None:
            return self._of_integers(x, bits)
        return nn.functional.linear(x, self.quantized_weight(), self._parameters["bias"])

    def _of_codes(self, x: Tensor, probe: CodedWeight) -> Tensor:
        """The forward of floats and a probe's codes."""
        self.__dict__["_was_read"] = True
        bias = self._parameters["bias"]
        autocast = torch.is_autocast_enabled(x.device.type)
        if probe.as_values or autocast or x.dtype is not torch.float32:
            probe.read_as_values = True
            return coded_linear(x, probe.codes, probe.scale, probe.grid, bias)
        rows = x if x.dim() == 2 else x.reshape(-1, self.in_features)
        y: Tensor = fk.probe_matmul(rows, probe.codes, probe.scale, probe.grid, bias)[0]
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)

    def _of_integers(self, x: Tensor, bits: int) -> Tensor:
        """The forward with activations of so many bits."""
        dtype, probe, bias = _result_dtype(x), self._probe_weight, self._parameters["bias"]
        weight = None  # only the backward pass reads values
        if probe is None:
            w = check_latent(self.weight, "QuantLinear")
            scale = self._fresh_scale(w)
            codes = fk.quantize(w, scale, self.grid)
            if torch.is_grad_enabled():
                weight = fake_quantize(w, scale, self.grid, self.surrogate)
        else:
            assert isinstance(probe, CodedWeight)
            codes, scale = probe.codes, probe.scale
            if torch.is_grad_enabled():
                weight = probe.values()
        self.__dict__["_was_read"] = True
        rows = x.flatten(0, -2) if x.dim() > 1 else x.unsqueeze(0)
        rows = rows if rows.dtype is torch.bfloat16 else rows.float()
        y = integer_linear(rows, weight, bias, codes, scale, self.grid, bits, dtype)
        return y.view(*x.shape[:-1], self.out_features)

    def _fresh_scale(self, w: Tensor) -> Tensor:
        """a of this forward; a dynamic rule's is written into the buffer too."""
        state = self.__dict__
        scale: Tensor = state["_buffers"]["scale"]
        if state["config"].dynamic:
            fresh = initial_scale(w, self.config)
            scale.copy_(fresh)
            # autograd keeps `fresh`: a second forward before backward() may write the buffer
            return fresh
        return scale

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "weight" in state_dict and prefix + "scale" not in state_dict:
            self.scale.copy_(initial_scale(self.weight, self.config))

    def extra_repr(self) -> str:
        """nn.Linear's text and what is quantized how."""
        c = self.config
        bits = "" if self.grid.bits is None else f", bits={self.grid.bits}"
        group = "" if c.group_size is None else f" of {c.group_size}"
        inputs = "" if c.act_bits is None else f", act_bits={c.act_bits}"
        return (
            f"{super().extra_repr()}, grid={self.grid.kind}{bits}, "
            f"scale={c.scale} per {c.granularity}{group}, surrogate={self.surrogate}{inputs}"
        )


def become_quantized(
    linear: nn.Linear, config: QuantConfig, scale: Tensor | None = None
) -> QuantLinear:
    """Turn an nn.Linear into a QuantLinear in place, so that every reference to it follows.

    ``scale``: the initial scale, where it is known already.
    """
    scale = initial_scale(linear.weight, config) if scale is None else scale
    if not isinstance(linear, QuantLinear):
        linear.__class__ = QuantLinear
    assert isinstance(linear, QuantLinear)
    linear.config, linear.grid, linear.surrogate = config, config.values, config.surrogate_name
    linear._probe_weight, linear._was_read = None, False
    linear.register_buffer("scale", scale)
    return linear


def initial_scale(
    w: Tensor, config: QuantConfig, op: str = "QuantLinear", name: str = "weight"
) -> Tensor:
    """a from the config's rule and a weight; ``op``, ``name``: call and weight, for error texts."""
    check_latent(w, op, name)
    group = config.group_size
    if group is not None and w.shape[1] % group:
        got = f"is {group}, which does not divide the {w.shape[1]} inputs of {name}"
        _check.fail(op, "group_size", got, "a divisor of in_features")
    with torch.no_grad():
        scale: Tensor = fk.compute_scale(w, config.values, config.scale, config.granularity, group)
        if config.scale_value is not None:
            scale = torch.full_like(scale, config.scale_value)
    return scale


def check_latent(w: Tensor | None, op: str, name: str = "weight") -> Tensor:
    """The latent weight, refused unless it is float32."""
    if w is None or w.dtype is not torch.float32:
        got = "is None" if w is None else f"has dtype {str(w.dtype).removeprefix('torch.')}"
        expected = "float32: call model.float() and use autocast"
        _check.fail(op, name, got, expected, TypeError)
    return w


def _result_dtype(x: Tensor) -> torch.dtype:
    """What nn.functional.linear of x and float32 weights returns; x of another dtype is refused."""
    device = x.device.type
    autocast = torch.is_autocast_enabled(device)
    if x.dtype not in ((torch.float32, *HALVES) if autocast else (torch.float32,)):
        got = f"has dtype {str(x.dtype).removeprefix('torch.')}"
        _check.fail("QuantLinear", "x", got, "float32, or a half under autocast", TypeError)
    return torch.get_autocast_dtype(device) if autocast else torch.float32


def _shallow_copy(module: M) -> M:
    """The same parameters, buffers and hooks in a new module with its own tables."""
    new = module.__class__.__new__(module.__class__)
    for key, value in module.__dict__.items():
        new.__dict__[key] = value.copy() if isinstance(value, (dict, set)) else value
    return new
