"""What a quantized layer is, whatever it multiplies: latent weight, scale, grid, their state."""

from __future__ import annotations

from typing import Any, ClassVar, TypeVar

import torch
from torch import Tensor, nn

import fogzo_kernels as fk
from fogzo_kernels import _check

from ..autograd import fake_quantize, integer_linear, rotate
from .coded_weight import CodedWeight
from .config import QuantConfig, given_config
from .no_weight import refuse_weight
from .scales import (
    as_rows,
    check_latent,
    initial_scale,
    learned_scale,
    scale_tensors,
    stretched_scale,
)

M = TypeVar("M", bound=nn.Module)
Q = TypeVar("Q", bound="QuantLayer")
HALVES = (torch.bfloat16, torch.float16)
OWN = ("config", "grid", "surrogate", "enabled", "_rotates", "_probe_weight", "_was_read")
DISABLED = "quantization_disabled"  # key in a state_dict of a layer that is switched off


class QuantLayer(nn.Module):
    """A layer whose forward uses Q(W) = a * value(W / a) for its weight W.

    Subclasses put it before the torch layer that they quantize: ``class QuantLinear(QuantLayer,
    nn.Linear)``. The weight counts as rows [N, K] = [shape[0], rest].

    Attributes:
        weight: latent weight W, float32, the optimizer's parameter.
        scale: a, float32: () or [N, 1] or [N, groups, 1]. A parameter for "lsq" (where less than
            1e-5 it counts as 1e-5), else a buffer, which the dynamic rules and "stretched"
            refresh at every forward.
        alpha: "stretched" alone: the learned range, a parameter of the scale's shape.
        grid: the values a weight may take. surrogate: its name. config: the QuantConfig.
        enabled: False, and the layer is its float twin (``disable_quantization``).
    """

    float_class: ClassVar[type[nn.Module]]  # the torch layer it quantizes
    multiplies: ClassVar[bool] = True  # whether it has inputs that could be integers
    begins_normal: ClassVar[bool] = False  # whether torch begins W by N(0, 1), not U(-1, 1)/sqrt K

    weight: Tensor
    scale: Tensor
    config: QuantConfig
    grid: fk.Grid
    surrogate: str
    enabled: bool
    _rotates: bool
    _probe_weight: Tensor | CodedWeight | None  # an estimator's: stands for Q(W) in one forward
    _was_read: bool  # an estimator's: Q(W) was asked for since it was last cleared

    # ---- the quantized weight

    def quantized_weight(self) -> Tensor:
        """Q(W), float32, W's shape; its gradient reaches W, and a learned scale.

        Where the scale is "quest" it is the rotated weight's: the layer rotates its input too.
        """
        state = self.__dict__
        state["_was_read"] = True
        w = self._latent()
        probe: Tensor | CodedWeight | None = state["_probe_weight"]
        if not state["enabled"]:
            values = self.probe_space(w)
        elif probe is not None:
            values = probe if isinstance(probe, Tensor) else probe.values()
        else:
            rows = self.probe_space(w)
            values = self._fake_quantize(rows, self._fresh_scale(rows))
        return values if w.dim() == 2 else values.view(w.shape)

    def _latent(self) -> Tensor:
        try:
            w = self.__dict__["_parameters"]["weight"]
        except KeyError:
            refuse_weight(self)
        return check_latent(w, type(self).__name__)

    def probe_space(self, tensor: Tensor) -> Tensor:
        """A tensor of W's shape as float32 [N, K] where the grid lies: rotated for "quest"."""
        return as_rows(tensor, self.__dict__["_rotates"])

    def from_probe_space(self, rows: Tensor) -> Tensor:
        """What ``probe_space`` made [N, K], back in W's shape."""
        values = rotate(rows) if self.__dict__["_rotates"] else rows
        w = self.__dict__["_parameters"]["weight"]
        return values if w.dim() == 2 else values.view(w.shape)

    def frozen_scale(self) -> Tensor:
        """a of the last forward, without gradient: what probes quantize by."""
        if self.config.scale == "lsq":
            return learned_scale(self.scale.detach())
        return self.scale

    @classmethod
    def frozen_rows_of(cls, module: nn.Module) -> frozenset[int]:
        """Rows of W that a layer of this kind, float or quantized, gives no gradient."""
        return frozenset()

    @property
    def frozen_rows(self) -> frozenset[int]:
        """Rows of W that this layer gives no gradient."""
        return self.frozen_rows_of(self)

    @property
    def act_bits(self) -> int | None:
        """Bits that the input is quantized to in every forward; None: it stays float."""
        return self.config.act_bits

    def _fake_quantize(self, rows: Tensor, scale: Tensor) -> Tensor:
        state = self.__dict__
        return fake_quantize(rows, scale, state["grid"], state["surrogate"], state["config"].limit)

    def _fresh_scale(self, rows: Tensor) -> Tensor:
        """a of this forward; what follows W or alpha is written into the buffer too."""
        state = self.__dict__
        config: QuantConfig = state["config"]
        if config.scale == "fixed":
            fixed: Tensor = state["_buffers"]["scale"]
            return fixed
        if config.scale == "lsq":
            return learned_scale(state["_parameters"]["scale"])
        if config.scale == "stretched":
            fresh = stretched_scale(state["_parameters"]["alpha"], config.stretch)
        else:
            fresh = initial_scale(rows, config)
        # autograd keeps `fresh`: a second forward before backward() may write the buffer
        state["_buffers"]["scale"].copy_(fresh.detach())
        return fresh

    # ---- products, for the layers that multiply

    def _bias(self) -> Tensor | None:
        try:
            own: Any = self.__dict__["_parameters"]["bias"]
        except KeyError:  # pruned or parametrized: what its hook made of it
            own = self.bias
        bias: Tensor | None = own
        return bias

    def _of_codes(self, rows: Tensor, probe: CodedWeight, bias: Tensor | None) -> Tensor:
        """Floats [M, K] by a probe's codes, [M, N]."""
        self.__dict__["_was_read"] = True
        y: Tensor = fk.probe_matmul(rows, probe.codes, probe.scale, probe.grid, bias)[0]
        return y

    def _codes(self) -> tuple[CodedWeight, Tensor | None]:
        """Q(W) as codes and, where gradients are wanted, as values: only backward reads these."""
        state = self.__dict__
        state["_was_read"] = True
        probe = state["_probe_weight"]
        if probe is not None:
            assert isinstance(probe, CodedWeight)
            return probe, probe.values() if torch.is_grad_enabled() else None
        rows = self.probe_space(self._latent())
        scale = self._fresh_scale(rows)
        codes = fk.quantize(rows.detach(), scale.detach(), self.grid)
        values = self._fake_quantize(rows, scale) if torch.is_grad_enabled() else None
        return CodedWeight(codes, scale.detach(), self.grid, None), values

    def _of_integers(self, x: Tensor, bits: int, dtype: torch.dtype) -> Tensor:
        """Rows [M, K] as integers of so many bits by codes, [M, N] of ``dtype``."""
        coded, values = self._codes()
        x = x if x.dtype is torch.bfloat16 else x.float()
        bias = self._bias()
        return integer_linear(x, values, bias, coded.codes, coded.scale, coded.grid, bits, dtype)

    def _result_dtype(self, x: Tensor) -> torch.dtype:
        """What torch's product of x and float32 weights has; x of another dtype is refused."""
        device = x.device.type
        autocast = torch.is_autocast_enabled(device)
        if x.dtype not in ((torch.float32, *HALVES) if autocast else (torch.float32,)):
            got = f"has dtype {str(x.dtype).removeprefix('torch.')}"
            expected = "float32, or a half under autocast"
            _check.fail(type(self).__name__, "x", got, expected, TypeError)
        return torch.get_autocast_dtype(device) if autocast else torch.float32

    # ---- from and to the float layer, state

    @classmethod
    def _from_float(cls: type[Q], call: str, module: nn.Module, config: QuantConfig | None) -> Q:
        op = f"{cls.__name__}.{call}"
        name, expected = call.removeprefix("from_"), cls.float_class
        if type(module) is not expected:
            got = f"is a {type(module).__name__}"
            _check.fail(op, name, got, f"an nn.{expected.__name__}", TypeError)
        config = given_config(op, config)
        why = cls.why_not(module)
        if why is not None:
            _check.fail(op, *why)
        return become_quantized(_shallow_copy(module), cls, config)

    @classmethod
    def why_not(cls, module: nn.Module) -> tuple[str, str, str] | None:
        """Argument, got and expected of a float layer's option that cannot be kept, or None."""
        return None

    def _to_float(self, quantized: bool) -> nn.Module:
        """The float layer: with this layer's latent weight (shared), or with a copy of Q(W)."""
        module = _shallow_copy(self)
        for name in OWN:
            del module.__dict__[name]
        for name in ("scale", "alpha"):
            module._buffers.pop(name, None)
            module._parameters.pop(name, None)
        module.__class__ = self.float_class  # type: ignore[assignment]
        if quantized:
            latent = self.weight
            with torch.no_grad():
                values = self.from_probe_space(self.quantized_weight().flatten(1)).clone()
            module.weight = nn.Parameter(values, requires_grad=latent.requires_grad)
        return module

    def _first_tensors(self, op: str) -> dict[str, Tensor]:
        w = check_latent(self.weight, op)
        with torch.no_grad():
            return scale_tensors(
                self.probe_space(w), self.config, op, "weight", self.begins_normal, self.frozen_rows
            )

    def rescale(self) -> None:
        """Compute the scale, fixed or learned, anew from the present weight."""
        with torch.no_grad():
            fresh = self._first_tensors(f"{type(self).__name__}.rescale")
            for name, tensor in fresh.items():
                table = self._parameters if name in self._parameters else self._buffers
                old: Any = table[name]
                if old.device == tensor.device:
                    # rows of zeros that get no gradient here may be trained by a tied layer
                    old.copy_(torch.where(fresh["scale"] > _check.MIN_SCALE, tensor, old))
                else:  # a layer made on the meta device got its weight from a checkpoint
                    setattr(
                        self, name, nn.Parameter(tensor) if table is self._parameters else tensor
                    )

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        if not self.enabled:
            destination[prefix + DISABLED] = torch.tensor(True)

    def _load_from_state_dict(
        self, state_dict: dict[str, Any], prefix: str, *args: Any, **kwargs: Any
    ) -> None:
        disabled = state_dict.pop(prefix + DISABLED, None)
        super()._load_from_state_dict(state_dict, prefix, *args, **kwargs)
        if prefix + "scale" in state_dict:  # a float layer's state says nothing of the switch
            self.enabled = disabled is None
        if prefix + "weight" in state_dict:
            key = self.config.learned or "scale"
            if prefix + key not in state_dict:
                self.rescale()

    def extra_repr(self) -> str:
        """The float layer's text and what is quantized how."""
        c = self.config
        bits = "" if self.grid.bits is None else f", bits={self.grid.bits}"
        group = "" if c.group_size is None else f" of {c.group_size}"
        inputs = "" if self.act_bits is None else f", act_bits={self.act_bits}"
        off = "" if self.enabled else ", disabled"
        return (
            f"{super().extra_repr()}, grid={self.grid.kind}{bits}, "
            f"scale={c.scale} per {c.granularity}{group}, surrogate={self.surrogate}{inputs}{off}"
        )


def become_quantized(
    module: nn.Module,
    cls: type[Q],
    config: QuantConfig,
    tensors: dict[str, Tensor] | None = None,
) -> Q:
    """Turn a float layer into ``cls`` in place, so that every reference to it follows.

    ``tensors``: its ``scale_tensors``, where they are there already.
    """
    if type(module) is not cls:
        module.__class__ = cls
    assert isinstance(module, cls)
    module.config, module.grid, module.surrogate = config, config.values, config.surrogate_name
    module.enabled, module._rotates = True, config.rotated
    module._probe_weight, module._was_read = None, False
    tensors = module._first_tensors(cls.__name__) if tensors is None else tensors
    for name, tensor in tensors.items():
        if isinstance(tensor, nn.Parameter):
            module.register_parameter(name, tensor)
        else:
            module.register_buffer(name, tensor)
    return module


def _shallow_copy(module: M) -> M:
    """The same parameters, buffers and hooks in a new module with its own tables."""
    new = module.__class__.__new__(module.__class__)
    for key, value in module.__dict__.items():
        new.__dict__[key] = value.copy() if isinstance(value, (dict, set)) else value
    return new
