"""The first rows of a batch, for probes that see only a part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fogzo_kernels import _check

EXPECTED = "a tensor, or a dict, list or tuple of tensors with one first dimension"


def first_rows(op: str, batch: Any, fraction: float) -> Any:
    """The first ceil(fraction * B) rows of every tensor of a batch of B rows, in its structure."""
    entries = list(batch.values()) if isinstance(batch, Mapping) else batch
    entries = [entries] if isinstance(entries, Tensor) else entries
    if not isinstance(entries, (list, tuple)) or not entries:
        _check.fail(op, "batch", f"is a {type(batch).__name__}", EXPECTED, TypeError)
    for entry in entries:
        if not isinstance(entry, Tensor) or entry.dim() == 0:
            what = "0-dim tensor" if isinstance(entry, Tensor) else type(entry).__name__
            _check.fail(op, "batch", f"holds a {what}", EXPECTED, TypeError)
    sizes = {len(entry) for entry in entries}
    if len(sizes) > 1 or 0 in sizes:
        _check.fail(op, "batch", f"has first dimensions {sorted(sizes)}", "one, at least 1")
    rows = math.ceil(fraction * sizes.pop())
    if isinstance(batch, Tensor):
        return batch[:rows]
    if isinstance(batch, Mapping):
        return {key: entry[:rows] for key, entry in batch.items()}
    heads = [entry[:rows] for entry in entries]
    if isinstance(batch, list):
        return heads
    return type(batch)(*heads) if hasattr(batch, "_fields") else tuple(heads)
