"""Operations on a GPU for tests that hold their arrays on the CPU."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch

import fogzo_kernels as fk
from fogzo_kernels import _array, _convert, _dispatch

OUTPUTS = ("out", "outs", "flip_count", "flip_counts")


def through_device(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    """Replace fk's operations by those that move every array to a device and results back."""
    for op in _dispatch.OPS:
        monkeypatch.setattr(fk, op, functools.partial(_travel, getattr(fk, op), device))


def _travel(function: Any, device: str, *args: Any, **named: Any) -> Any:
    moved: dict[int, tuple[Any, Any]] = {}  # by the id of the array here: it and the one there
    kinds = set()

    def there(array: Any) -> Any:
        if id(array) not in moved:
            kinds.add(_array.kind(array))
            moved[id(array)] = array, _convert.to_torch(array).to(device)
        return moved[id(array)][1]

    given = named.get("out")
    args, named = _convert.each(args, there), _convert.each(named, there)
    if function.__name__ == "noise" and named.get("out") is None:
        named["device"] = device
    result = function(*args, **named)
    for name in OUTPUTS:
        _convert.each(named.get(name), lambda array: back(array, moved))
    if given is not None and result is named["out"]:
        return given
    here = {id(there): here for here, there in moved.values()}

    def home(array: Any) -> Any:
        if id(array) in here:
            return here[id(array)]
        return array.cpu().numpy() if kinds == {"numpy"} else array.cpu()

    return _convert.each(result, home)


def back(array: torch.Tensor, moved: dict[int, tuple[Any, Any]]) -> torch.Tensor:
    """Copy an output into the array that the test holds."""
    for here, there in moved.values():
        if there is array and here is not there:
            _convert.to_torch(here).copy_(there)
    return array
