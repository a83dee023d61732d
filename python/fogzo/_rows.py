"""Rows of JSON files with one object a line, as run folders and loggers write them."""

from __future__ import annotations

import contextlib
import json
import math
import os
from pathlib import Path
from typing import Any


def finite(value: Any) -> Any:
    """The value with every NaN and infinity as None, because JSON has neither."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [finite(item) for item in value]
    if isinstance(value, dict):
        return {key: finite(item) for key, item in value.items()}
    return value


def encoded(row: dict[str, Any]) -> bytes:
    """One object, one line."""
    return (json.dumps(finite(row), allow_nan=False) + "\n").encode()


def replace(path: Path, data: bytes) -> None:
    """Write a file so that a reader finds the old or the new one, whole."""
    temporary = path.with_name(path.name + ".new")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()  # a part of a file, on a disk that may be full
        raise
