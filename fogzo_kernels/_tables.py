"""Tables made once, in float64, and shared by all backends. Needs neither torch nor NumPy."""

from __future__ import annotations

import functools
import math
from array import array


@functools.cache
def atanh_table() -> array[float]:
    """float32(atanh((2k + 1) / 65536)) for k = 0 .. 32767: abs(e u) of the tanh surrogate."""
    return array("f", [math.atanh((2 * k + 1) / 65536) for k in range(32768)])
