"""What functions of torch are called as while torch.vmap maps a closure over the probes."""

from __future__ import annotations

from functools import cache
from types import CodeType, FunctionType
from typing import Any

import torch
from torch.overrides import TorchFunctionMode

from ._autocast import AutocastRules
from ._masks import drawn


class Mapping(TorchFunctionMode):
    """Calls each function of torch so that torch.vmap makes of it what each probe's own call would.

    Autocast keeps its rules (AutocastRules), and random masks their numbers (``drawn``).

    Args:
        device: type of the tensors' device.
    """

    def __init__(self, device: str) -> None:
        super().__init__()
        self._device, self._rules = device, AutocastRules(device)
        self._running: FunctionType | None = None

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if torch.compiler.is_compiling():
            if torch.is_autocast_enabled(self._device):
                torch._dynamo.graph_break()  # the rules are for functions that really are called
            return func(*args, **kwargs)
        if isinstance(func, FunctionType):
            return self._inside(func, args, kwargs)
        name = getattr(func, "__name__", "").partition(".")[0]
        if name == "group_norm" and args[0].dim() > 3:
            # it asks of images how they lie in memory, which torch.vmap does not know
            x = args[0]
            y = self._call(func, name, (x.flatten(2), *args[1:]), kwargs).view(x.shape)
            return y if x.is_contiguous() else torch.empty_like(x, dtype=y.dtype).copy_(y)
        return self._call(func, name, args, kwargs)

    def _call(self, func: Any, name: str, args: Any, kwargs: dict[str, Any]) -> Any:
        if torch.is_autocast_enabled(self._device):
            return self._rules.call(func, name, args, kwargs)
        return drawn(func, name, args, kwargs)

    def _inside(self, func: FunctionType, args: Any, kwargs: dict[str, Any]) -> Any:
        """Call a function of torch's written in Python, and see the functions that it calls."""
        inside, outer = inside_of(func), self._running
        # super().unflatten in Tensor.unflatten comes here under the name of that
        if inside is None or func is outer:
            return func(*args, **kwargs)
        self._running = func
        try:
            with self:
                return inside(*args, **kwargs)
        finally:
            self._running = outer


def inside_of(func: FunctionType) -> FunctionType | None:
    """A function of torch's written in Python, without its own look for a mode to go to.

    The functions that it calls then go to the mode, and it does not once more. None where it does
    not look. It is made anew each time, of the module as it is now.
    """
    looks = looks_of(func.__code__)
    if not looks or not all(name in func.__globals__ for name in looks):
        return None
    scope = func.__globals__ | dict.fromkeys(looks, _no_mode)
    inside = FunctionType(func.__code__, scope, func.__name__, func.__defaults__, func.__closure__)
    inside.__kwdefaults__ = func.__kwdefaults__
    return inside


@cache
def looks_of(code: CodeType) -> tuple[str, ...]:
    return tuple(name for name in code.co_names if name.startswith("has_torch_function"))


def _no_mode(*_: Any) -> bool:
    return False
