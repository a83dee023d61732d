"""Interleaved timing of variants: medians and 10 to 90 % ranges, in seconds."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from . import _device

Call = Callable[[], object]


@dataclass(frozen=True)
class Times:
    """Seconds of one call: median, and the 10 % and 90 % points over the rounds."""

    median: float
    low: float
    high: float

    def plain(self) -> dict[str, float]:
        return {"median": self.median, "low": self.low, "high": self.high}


def clock(threads: int) -> Callable[[], int]:
    """Nanosecond clock: CPU time on one thread (other load does not count), else wall time."""
    return time.process_time_ns if threads == 1 else time.perf_counter_ns


def _calls_for(call: Call, tick: Callable[[], int], least_ns: int) -> int:
    """How often to call so that one sample lasts at least least_ns."""
    count = 1
    while True:
        start = tick()
        for _ in range(count):
            call()
        spent = tick() - start
        if spent >= least_ns:
            return count
        count = max(2 * count, min(100 * count, count * least_ns // max(spent, 1) + 1))


def spread(samples: list[float]) -> Times:
    ordered = sorted(samples)
    last = len(ordered) - 1
    return Times(ordered[len(ordered) // 2], ordered[round(0.1 * last)], ordered[round(0.9 * last)])


def measure(
    variants: Mapping[str, Call],
    *,
    threads: int,
    rounds: int = 60,
    warmup: int = 10,
    sample_seconds: float = 0.004,
) -> dict[str, Times]:
    """Time variants against each other.

    Every round takes one sample of each variant, in an order shuffled by a fixed seed, so that
    drift of the machine meets all of them alike. On a GPU a sample is one call between two events.

    Args:
        variants: calls without arguments, by name.
        threads: 1 measures CPU time, more measure wall time.
        rounds: samples per variant.
        warmup: calls of each before the first sample.
        sample_seconds: a sample repeats its call until it lasts about this long.

    Returns:
        Times of one call, by name.

    Example:
        >>> sorted(measure({"a": lambda: None}, threads=1, rounds=3))
        ['a']
    """
    if _device.on_gpu():
        from . import _events

        clock_ = _events.Clock(head_start=sample_seconds > 0)
        return _events.measure(variants, rounds=rounds, warmup=min(warmup, 3), clock=clock_)
    tick = clock(threads)
    counts = {}
    for name, call in variants.items():
        for _ in range(warmup):
            call()
        counts[name] = _calls_for(call, tick, int(sample_seconds * 1e9))
    samples: dict[str, list[float]] = {name: [] for name in variants}
    order = list(variants)
    shuffler = random.Random(0)
    for _ in range(rounds):
        shuffler.shuffle(order)
        for name in order:
            call, count = variants[name], counts[name]
            start = tick()
            for _ in range(count):
                call()
            samples[name].append((tick() - start) / count / 1e9)
    return {name: spread(values) for name, values in samples.items()}
