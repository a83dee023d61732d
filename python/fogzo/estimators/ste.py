"""The straight-through estimator: plain back-propagation through the quantized layers."""

from __future__ import annotations

from typing import Any

from torch import nn

from ._base import Estimator, Forward, as_scalar
from .record import Last


class STE(Estimator):
    """Back-propagation with each layer's surrogate; the baseline, one forward and one backward.

    W^ = a value(x), x = W / a
    G  = (dL/dW^) h'(x)         h of the layer's surrogate, its mask for most: 1 inside the range

    Args:
        model: with or without quantized layers.
        accumulate: calls that make one schedule step; without effect on the STE.
        allow_unused: accept quantized weights that the forward never uses.
        check, capturable: as FOGZO's.

    Raises:
        ValueError, TypeError: an argument outside its range.

    Example:
        >>> loss = fogzo.STE(model).backward(lambda: criterion(model(x), y))

    Source: Bengio, Leonard & Courville, arXiv 1308.3432.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        accumulate: int = 1,
        allow_unused: bool = False,
        check: bool = False,
        capturable: bool = False,
    ) -> None:
        super().__init__(
            model,
            accumulate=accumulate,
            allow_unused=allow_unused,
            check=check,
            capturable=capturable,
        )

    def _step(self, forward: Forward, scaler: Any) -> Last:
        loss = self._forward(forward)
        self._back_propagate(loss, scaler)
        if self._captures is not None:
            self._captures.learn()
        return Last(as_scalar(loss))
