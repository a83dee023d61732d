"""Times of a call on the current GPU."""

from __future__ import annotations

import statistics
from collections.abc import Callable

import torch


def seconds(call: Callable[[], object], repeat: int = 30, warmup: int = 5) -> float:
    """Median time of one call by CUDA events, the L2 cache emptied before each.

    Args:
        call: launches work on the current stream.
        repeat: calls that are timed. warmup: calls before them.
    """
    flush = torch.empty(
        4 * torch.cuda.get_device_properties().L2_cache_size, dtype=torch.uint8, device="cuda"
    )
    for _ in range(warmup):
        call()
    times = []
    for _ in range(repeat):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)
