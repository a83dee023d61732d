"""Times of calls on a GPU by CUDA events, the L2 cache emptied before each."""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Mapping
from typing import Any

import torch

from ._measure import Call, Times, spread

LEAST_FLUSH = 64 * 2**20
HEAD_START = 1_000_000  # clock cycles, about half a millisecond
Pair = tuple[Any, Any]


def flush_bytes(l2: int) -> int:
    """Bytes to write so that nothing of a call's inputs stays in an L2 cache of so many bytes.

    Example:
        >>> flush_bytes(50 * 2**20)
        209715200
    """
    return max(4 * l2, LEAST_FLUSH)


class Clock:
    """Times one call at a time on the current stream.

    Args:
        head_start: keep the GPU busy while the host enqueues the call, so that short kernels are
            not timed by their launches.
        cuda, device: torch.cuda, or what a test gives in its place.
    """

    def __init__(
        self, head_start: bool = True, cuda: Any = torch.cuda, device: str = "cuda"
    ) -> None:
        self._cuda, self._head_start = cuda, head_start
        size = flush_bytes(cuda.get_device_properties().L2_cache_size)
        self._flush = torch.empty(size, dtype=torch.uint8, device=device)

    def start(self, call: Call) -> Pair:
        """Enqueue a call between two events; nothing is waited for."""
        begin, end = (self._cuda.Event(enable_timing=True) for _ in range(2))
        self._flush.zero_()
        if self._head_start:
            self._cuda._sleep(HEAD_START)
        begin.record()
        call()
        end.record()
        return begin, end

    def seconds(self, pair: Pair) -> float:
        begin, end = pair
        end.synchronize()
        return float(begin.elapsed_time(end)) / 1e3


def seconds(
    call: Callable[[], object], repeat: int = 30, warmup: int = 5, clock: Clock | None = None
) -> float:
    """Median time of one call.

    Args:
        call: launches work on the current stream.
        repeat: calls that are timed. warmup: calls before them.
        clock: a Clock with a head start.
    """
    clock = clock or Clock()
    for _ in range(warmup):
        call()
    return statistics.median(clock.seconds(clock.start(call)) for _ in range(repeat))


def measure(
    variants: Mapping[str, Call], *, rounds: int, warmup: int, clock: Clock | None = None
) -> dict[str, Times]:
    """Time variants against each other, one call a round, in an order shuffled by a fixed seed."""
    clock = clock or Clock()
    for call in variants.values():
        for _ in range(warmup):
            call()
    samples: dict[str, list[float]] = {name: [] for name in variants}
    order, shuffler = list(variants), random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            samples[name].append(clock.seconds(clock.start(variants[name])))
    return {name: spread(values) for name, values in samples.items()}
