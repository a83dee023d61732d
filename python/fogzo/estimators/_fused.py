"""Keeps the fused attention of eval mode out of probes: it rounds otherwise than the guide's."""

from __future__ import annotations

import threading
from typing import Any

from torch.backends import mha


class _Unfused:
    """While any thread is inside, torch's switch for the whole process is off; then as found."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._found = True

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._found = mha.get_fastpath_enabled()
                mha.set_fastpath_enabled(False)
            self._inside += 1

    def __exit__(self, *_: Any) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                mha.set_fastpath_enabled(self._found)


unfused = _Unfused()
