"""Autocast's rules applied to the functions of torch, before torch.vmap takes them apart."""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Any

import torch
from torch import Tensor

from ._masks import drawn

# What autocast runs in its own dtype, and in the widest dtype of the arguments. All else that has a
# kernel of autocast's runs in float32.
LOWER = frozenset(
    {
        "_addmm_activation", "_convolution", "_native_multi_head_attention",
        "_scaled_dot_product_flash_attention", "_thnn_fused_gru_cell", "_thnn_fused_lstm_cell",
        "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "chain_matmul", "conv1d", "conv2d",
        "conv3d", "conv_tbc", "conv_transpose1d", "conv_transpose2d", "conv_transpose3d",
        "convolution", "cudnn_convolution", "cudnn_convolution_transpose", "einsum", "gru_cell",
        "linalg_multi_dot", "linalg_vecdot", "linear", "lstm_cell", "matmul", "mkldnn_rnn_layer",
        "mm", "mv", "prelu", "rnn_relu_cell", "rnn_tanh_cell", "scaled_dot_product_attention",
    }
)
WIDEST = frozenset(
    {
        "addcdiv", "addcmul", "atan2", "bilinear", "cat", "cross", "dot", "index_copy", "index_put",
        "scatter_add", "stack", "tensordot", "vdot",
    }
)
# its rule is another on each device; torch.vmap keeps the part that has it
LEFT = frozenset({"grid_sampler"})
# without a kernel of autocast's, but made of parts that run in float32 alone
LOSSES = frozenset({"cross_entropy_loss", "nll_loss_nd"})
# a half input with float32 weights: computed in float32 and rounded once, but by torch.vmap
NORMS = frozenset({"batch_norm", "group_norm", "instance_norm"})


@cache
def float32_functions(device: str) -> frozenset[str]:
    """Names of the operations that autocast of the device runs in float32.

    Raises:
        RuntimeError: torch has no rules for the device.
    """
    key = f"Autocast{device.upper()}"
    every = torch._C._dispatch_get_all_op_names()
    ops = [op for op in every if torch._C._dispatch_has_kernel_for_dispatch_key(op, key)]
    if "aten::linear" not in ops:
        raise RuntimeError(f"autocast is on, and this torch has no rules of it for {device}")
    names = {op.removeprefix("aten::").partition(".")[0] for op in ops if op.startswith("aten::")}
    return frozenset(names | LOSSES) - LOWER - WIDEST - LEFT


class AutocastRules:
    """Casts as autocast does where a function of torch is called, and calls it without autocast.

    torch.vmap takes cross_entropy, linear and others apart before autocast sees them, and their
    parts have other rules, or none: a loss that is float32 without torch.vmap would be one in half
    precision, whose differences are rounding.

    Args:
        device: type of the tensors' device.
    """

    def __init__(self, device: str) -> None:
        self._device = device

    def call(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        """``func(*args, **kwargs)``, the function of torch of that name, where autocast is on."""
        if name.startswith("__") and name.endswith("__"):  # __matmul__
            name = name[2:-2]
        found = {t.dtype for t in tensors_in((args, kwargs)) if self._is_eligible(t)}
        dtype = self._dtype_for(name, found)
        if dtype is not None:
            return self._call(func, args, kwargs, dtype)
        if name in NORMS and len(found) > 1 and args[0].dtype is not torch.float32:
            return self._call(func, args, kwargs, torch.float32).to(args[0].dtype)
        return drawn(func, name, args, kwargs)

    def _dtype_for(self, name: str, found: set[torch.dtype]) -> torch.dtype | None:
        """What autocast casts arguments of the dtypes ``found`` to; None: it leaves them."""
        if name in LOWER:
            return torch.get_autocast_dtype(self._device)
        if name in WIDEST:
            wide = torch.float32 in found
            return torch.float32 if wide else torch.get_autocast_dtype(self._device)
        return torch.float32 if name in float32_functions(self._device) else None

    def _call(self, func: Any, args: Any, kwargs: dict[str, Any], dtype: torch.dtype) -> Any:
        args, kwargs = self._cast((args, kwargs), dtype)
        with torch.autocast(self._device, enabled=False):
            return func(*args, **kwargs)

    def _is_eligible(self, tensor: Tensor) -> bool:
        of_device = tensor.device.type == self._device and tensor.is_floating_point()
        return of_device and tensor.dtype is not torch.float64

    def _cast(self, given: Any, dtype: torch.dtype) -> Any:
        """``given`` with the tensors inside it cast."""
        if isinstance(given, Tensor):
            return given.to(dtype) if self._is_eligible(given) else given
        if isinstance(given, dict):
            return {key: self._cast(value, dtype) for key, value in given.items()}
        if type(given) in (list, tuple):
            return type(given)(self._cast(value, dtype) for value in given)
        return given


def tensors_in(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, (dict, list, tuple)):
        for value in values.values() if isinstance(values, dict) else values:
            yield from tensors_in(value)
