"""Rows of JSON files with one object a line, as run folders and loggers write them."""

from __future__ import annotations

import json
import math
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
