"""A linear layer whose forward multiplies by the quantized weight."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from ..autograd import rotate
from .coded_weight import CodedWeight
from .config import QuantConfig, given_config
from .quant_layer import QuantLayer, become_quantized


class QuantLinear(QuantLayer, nn.Linear):
    """y = x^ @ Q(W).T + bias, with Q(W) = a * value(W / a); x^ is x, quantized for ``act_bits``.

    Args:
        in_features, out_features: K and N >= 1; x is float32 [..., K] (a half under autocast), y
            [..., N].
        bias: whether there is one, float32 [N]. device: of weight, bias and scale.
        config: grid, scale rule and surrogate; act_bits: each token of the input as integers times
            a scale, multiplied with the codes of the weight in integers. The gradient passes the
            rounding of the input unchanged (1 bit: where abs x <= its scale).

    Its attributes are those of every QuantLayer; W is [out_features, in_features]. Its state_dict
    has nn.Linear's keys and ``scale`` (and ``alpha`` where that is learned). A state_dict of a
    plain nn.Linear loads with ``strict=False``; a fixed or learned scale is then computed from the
    loaded weight.

    Raises:
        ValueError, TypeError: a group_size that does not divide in_features, a half-precision
            weight, (in forward) an x of another dtype or a scale that is not finite.
        RuntimeError: (in forward) the weight is no parameter any more: pruned, parametrized.

    Example:
        >>> QuantLinear(4, 2, config=QuantConfig(bits=2))(torch.zeros(3, 4)).shape
        torch.Size([3, 2])

    Source: as QuantConfig's rules; the gradient Bengio, Leonard & Courville, arXiv 1308.3432.
    """

    float_class = nn.Linear

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
        become_quantized(self, QuantLinear, config)

    @classmethod
    def from_linear(cls, linear: nn.Linear, config: QuantConfig | None = None) -> QuantLinear:
        """A quantized layer that shares the weight and bias parameters (and hooks) of ``linear``.

        Args:
            linear: an nn.Linear with float32 parameters, which stays as it is.
            config: as the layer's; None is QuantConfig().

        Returns:
            A new QuantLinear.

        Raises:
            TypeError, ValueError: another module, a subclass or config, or as QuantLinear's.

        Example:
            >>> QuantLinear.from_linear(linear).weight is linear.weight
            True
        """
        return cls._from_float("from_linear", linear, config)

    def to_linear(self, quantized: bool = False) -> nn.Linear:
        """An nn.Linear with this layer's latent weight (shared), or with a copy of Q(W).

        Its input stays float, whatever act_bits says.

        Args:
            quantized: False shares the latent parameter; True gives a new parameter holding Q(W),
                rotated back where the scale is "quest".

        Returns:
            A new nn.Linear; bias and hooks are shared either way.

        Raises:
            TypeError, ValueError, RuntimeError: (quantized) as those of this layer's forward.

        Example:
            >>> layer.to_linear().weight is layer.weight
            True
        """
        return cast(nn.Linear, self._to_float(quantized))

    def forward(self, x: Tensor) -> Tensor:
        """x [..., in_features] -> [..., out_features]; under autocast in autocast's dtype."""
        state = self.__dict__
        if not state["enabled"]:
            state["_was_read"] = True
            return nn.functional.linear(x, self.weight, self._bias())
        bits, probe = state["config"].act_bits, state["_probe_weight"]
        dtype = x.dtype
        if state["_rotates"]:
            dtype = self._result_dtype(x)
            x = rotate(x.float())
        if bits is None and isinstance(probe, CodedWeight):
            bits = probe.act_bits
            if bits is None and not torch.is_grad_enabled():
                state["_was_read"] = True
                bias = self._bias()
                autocast = torch.is_autocast_enabled(x.device.type)
                if probe.as_values or dtype is not torch.float32 or autocast:
                    return probe.product(x, bias)
                return self._shaped(x, self._of_codes(self._rows(x), probe, bias))
        if bits is not None:
            return self._shaped(x, self._of_integers(self._rows(x), bits, self._result_dtype(x)))
        return nn.functional.linear(x, self.quantized_weight(), self._bias())

    def _rows(self, x: Tensor) -> Tensor:
        return x if x.dim() == 2 else x.reshape(-1, x.shape[-1])

    def _shaped(self, x: Tensor, y: Tensor) -> Tensor:
        return y if x.dim() == 2 else y.view(*x.shape[:-1], self.out_features)
