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

    nn.Embedding's max_norm and sparse are refused: the one writes the weight in every forward, the
    other's gradient has rows only.

    Args:
        num_embeddings, embedding_dim: entries N and width K >= 1; indices of any shape [...], int32
            or int64 in 0 .. N-1, give float32 [..., K].
        padding_idx: the row without a gradient, or None.
        scale_grad_by_freq: divide a row's gradient by how often the batch has its index.
        device: of weight and scale.
        config: grid, scale rule and surrogate, as for QuantLinear.

    Raises:
        ValueError, TypeError, RuntimeError: as QuantLinear's. IndexError: an index out of range.

    Example:
        >>> QuantEmbedding(10, 4)(torch.tensor([[1, 9]])).shape
        torch.Size([1, 2, 4])

    Source: as QuantLinear's.
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
        """A quantized layer that shares the weight parameter (and hooks) of ``embedding``.

        Args, Returns, Raises: as QuantLinear.from_linear's, of an nn.Embedding; ValueError where it
        has max_norm or sparse.
        """
        return cls._from_float("from_embedding", embedding, config)

    def to_embedding(self, quantized: bool = False) -> nn.Embedding:
        """An nn.Embedding with the latent weight (shared), or with a copy of Q(W).

        Args, Returns, Raises: as QuantLinear.to_linear's.
        """
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
