"""Keep PyTorch's fused transformer forward from skipping quantized layers."""

from __future__ import annotations

from torch import nn

from .quant_layer import QuantLayer


def disable_fast_path(model: nn.Module) -> None:
    """Make the transformer layers that hold a quantized layer call it in eval mode too.

    In eval mode without gradients nn.TransformerEncoderLayer hands linear1.weight and
    linear2.weight, the latent ones, to one fused kernel. A layer whose activation it does not know
    (activation_relu_or_gelu 0, read by nothing else) never takes that way; an nn.TransformerEncoder
    must then not make nested tensors either, which only the fused kernel takes.
    """
    for module in model.modules():
        if not any(isinstance(child, QuantLayer) for child in module.modules()):
            continue
        if isinstance(module, nn.TransformerEncoder):
            module.use_nested_tensor = False
        elif isinstance(module, nn.TransformerEncoderLayer):
            module.activation_relu_or_gelu = 0
