"""An embedding that looks up rows of the quantized weight."""

from __future__ import annotations

from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..autograd import rotate
from .coded_weight import CodedWeight
from .config import QuantConfig, given_config
from .quant_layer import QuantLayer, become_quantized


class QuantEmbedding(QuantLayer, nn.Embedding):
    """An nn.Embedding that looks up rows of Q(W); W is [num_embeddings, embedding_dim].

    One scale a row is ``granularity="channel"``. The row ``padding_idx`` is quantized like all
    others (0 is no value of mid-rise and sign grids) and gets no gradient, from probes neither.
    It has no input to quantize: ``act_bits`` says nothing here.

    Args:
        num_embeddings, embedding_dim, padding_idx, scale_grad_by_freq, device: as nn.Embedding's.
            Its max_norm and sparse are refused: the one writes the weight in every forward, the
            other's gradient has rows only.
        config: grid, scale rule and surrogate, as for QuantLinear.

    Raises:
        ValueError, TypeError: as QuantLinear's.

    Example:
        >>> QuantEmbedding(10, 4)(torch.tensor([[1, 9]])).shape
        torch.Size([1, 2, 4])
    """

    float_class = nn.Embedding
    multiplies = False
    begins_normal = True

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        scale_grad_by_freq: bool = False,
        config: QuantConfig | None = None,
        device: Any = None,
    ) -> None:
        config = given_config("QuantEmbedding", config)
        nn.Embedding.__init__(
            self,
            num_embeddings,
            embedding_dim,
            padding_idx,
            scale_grad_by_freq=scale_grad_by_freq,
            device=device,
            dtype=torch.float32,
        )
        become_quantized(self, QuantEmbedding, config)

    @classmethod
    def from_embedding(
        cls, embedding: nn.Embedding, config: QuantConfig | None = None
    ) -> QuantEmbedding:
        """A quantized layer that shares the weight parameter (and hooks) of ``embedding``."""
        return cls._from_float("from_embedding", embedding, config)

    def to_embedding(self, quantized: bool = False) -> nn.Embedding:
        """An nn.Embedding with the latent weight (shared), or with a copy of Q(W)."""
        return cast(nn.Embedding, self._to_float(quantized))

    @classmethod
    def why_not(cls, module: nn.Module) -> tuple[str, str, str] | None:
        assert isinstance(module, nn.Embedding)
        if module.max_norm is not None:
            got = f"is {module.max_norm}, which writes the weight in every forward"
            return "max_norm", got, "None"
        return ("sparse", "is True", "False: gradients are dense") if module.sparse else None

    @classmethod
    def frozen_rows_of(cls, module: nn.Module) -> frozenset[int]:
        assert isinstance(module, nn.Embedding)
        return frozenset() if module.padding_idx is None else frozenset((module.padding_idx,))

    @property
    def act_bits(self) -> int | None:
        return None

    def forward(self, input: Tensor) -> Tensor:
        """Indices, int32 or int64 of any shape -> float32 [..., embedding_dim]."""
        state = self.__dict__
        if not state["enabled"]:
            state["_was_read"] = True
            return nn.Embedding.forward(self, input)
        probe = state["_probe_weight"]
        if isinstance(probe, CodedWeight):
            state["_was_read"] = True
            rows = probe.rows(input.reshape(-1)).view(*input.shape, self.embedding_dim)
        else:
            rows = F.embedding(
                input,
                self.quantized_weight(),
                self.padding_idx,
                scale_grad_by_freq=self.scale_grad_by_freq,
            )
        return rotate(rows) if state["_rotates"] else rows
