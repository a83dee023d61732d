"""A linear layer whose forward multiplies by the quantized weight."""

from __future__ import annotations

from typing import Any, TypeVar

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..autograd import fake_quantize
from .config import QuantConfig

M = TypeVar("M", bound=nn.Module)


class QuantLinear(nn.Linear):
    """y = x @ Q(W).T + bias, with Q(W) = a * value(W / a).

    Args:
        in_features, out_features, bias, device: as nn.Linear's.
        config: grid, scale rule and surrogate.

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
    _probe_weight: Tensor | None  # an estimator's: stands for Q(W) during one forward
    _was_read: bool  # an estimator's: Q(W) was asked for since it was last cleared

    def __init__(
        self,
        in_features: int,
        out_features: int,
        bias: bool = True,
        config: QuantConfig | None = None,
        device: Any = None,
    ) -> None:
        super().__init__(in_features, out_features, bias=bias, device=device, dtype=torch.float32)
        become_quantized(self, config if config is not None else QuantConfig())

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
        return become_quantized(_shallow_copy(linear), config if config else QuantConfig())

    def to_linear(self, quantized: bool = False) -> nn.Linear:
        """An nn.Linear with this layer's latent weight (shared), or with a copy of Q(W).

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
        probe: Tensor | None = state["_probe_weight"]
        if probe is not None:
            return probe
        w = check_latent(state["_parameters"]["weight"], "QuantLinear")
        scale: Tensor = state["_buffers"]["scale"]
        if state["config"].dynamic:
            fresh = initial_scale(w, self.config)
            scale.copy_(fresh)
            # autograd keeps `fresh`: a second forward before backward() may write the buffer
            scale = fresh
        return fake_quantize(w, scale, self.grid, self.surrogate)

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., out_features]; under autocast in autocast's dtype."""
        return nn.functional.linear(x, self.quantized_weight(), self._parameters["bias"])

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
        return (
            f"{super().extra_repr()}, grid={self.grid.kind}{bits}, "
            f"scale={c.scale} per {c.granularity}{group}, surrogate={self.surrogate}"
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


def initial_scale(w: Tensor, config: QuantConfig, name: str = "weight") -> Tensor:
    """a from the config's rule and a weight; ``name``: the weight's, for error texts."""
    check_latent(w, "QuantLinear", name)
    group = config.group_size
    if group is not None and w.shape[1] % group:
        got = f"is {group}, which does not divide the {w.shape[1]} inputs of {name}"
        _check.fail("QuantLinear", "group_size", got, "a divisor of in_features")
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


def _shallow_copy(module: M) -> M:
    """The same parameters, buffers and hooks in a new module with its own tables."""
    new = module.__class__.__new__(module.__class__)
    for key, value in module.__dict__.items():
        new.__dict__[key] = value.copy() if isinstance(value, (dict, set)) else value
    return new
