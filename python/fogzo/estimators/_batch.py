"""The first rows of a batch, for probes that see only a part of it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from fogzo_kernels import _check

# float64 products with a decimal fraction are within 2^-51 of the exact ones: 0.07 * 100 is over 7
BELOW = 1 - 2**-51
EXPECTED = "a tensor, or a dict, list or tuple of tensors with one first dimension"


def first_rows(op: str, batch: Any, fraction: float) -> Any:
    """The first ceil(fraction * B) rows of every tensor of a batch of B rows, in its structure.

    A mapping keeps its type where that can be made of a dict, else it becomes a dict.
    """
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
    rows = math.ceil(fraction * sizes.pop() * BELOW)
    if isinstance(batch, Tensor):
        return batch[:rows]
    if isinstance(batch, Mapping):
        return _like(batch, {key: entry[:rows] for key, entry in batch.items()})
    heads = [entry[:rows] for entry in entries]
    if isinstance(batch, list):
        return heads
    return type(batch)(*heads) if hasattr(batch, "_fields") else tuple(heads)


def _like(batch: Mapping[Any, Any], heads: dict[Any, Tensor]) -> Mapping[Any, Tensor]:
    """``heads`` as a mapping of the batch's type, such as one with its entries as attributes."""
    try:
        made = type(batch)(heads)  # type: ignore[call-arg]
    except TypeError:  # its constructor takes something else
        return heads
    same = len(made) == len(heads) and all(made.get(key) is heads[key] for key in heads)
    return made if same else heads
