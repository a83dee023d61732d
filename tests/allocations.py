"""What torch's CPU allocator gives out, inside torch.vmap too, where dispatch modes do not see."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from torch._C._profiler import _EventType
from torch.profiler import ProfilerActivity, profile

PROBE = "allocations: probe"  # name of a record_function


@dataclass
class Allocated:
    """Bytes: the most at once, those left at the end, and the most of ``watched`` sizes at once.

    The last ones count from within a PROBE until they are freed.
    """

    peak: int = 0
    left: int = 0
    most_watched: int = 0


def allocated_by(call: Callable[[], Any], watched: set[int]) -> Allocated:
    """Run ``call``; what was allocated before it does not count, nor do frees of that."""
    gc.collect()
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as run:
        call()
    events = list(_walk(run.profiler.kineto_results.experimental_event_tree()))
    spans = [(e.start_time_ns, e.end_time_ns) for e in events if e.name == PROBE]
    changes = [e for e in events if e.tag == _EventType.Allocation]
    found, live, dense = Allocated(), {}, {}
    for event in sorted(changes, key=lambda e: e.start_time_ns):
        at, size = event.extra_fields.ptr, event.extra_fields.alloc_size
        if size <= 0:
            live.pop(at, None)
            dense.pop(at, None)
            continue
        live[at] = size
        if size in watched and any(a <= event.start_time_ns <= b for a, b in spans):
            dense[at] = size
        found.peak = max(found.peak, sum(live.values()))
        found.most_watched = max(found.most_watched, sum(dense.values()))
    found.left = sum(live.values())
    return found


def _walk(events: Any) -> Iterator[Any]:
    for event in events:
        yield event
        yield from _walk(event.children)
