"""What a CUDA graph does, on a CPU: a step's operations, recorded and run again without Python.

Nothing of the host takes part in a replay: every number that the step read there is as it was when
it was recorded. What a capture does not allow is an error when the recording ends: values read by
the host, shapes that depend on values, tensors made from the host's numbers, random numbers.
"""

from __future__ import annotations

import gc
import traceback
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

import fogzo_kernels as fk
from fogzo.estimators import _capture
from fogzo_kernels import _array, _dispatch

UNCAPTURABLE = (torch.Tag.data_dependent_output, torch.Tag.dynamic_output_shape)
FROM_HOST = ("lift_fresh", "lift_fresh_copy", "is_nonzero", "masked_select", "set_")
INDEXED = ("index", "index_put", "index_put_", "_index_put_impl_")
GENERATOR = torch.default_generator
ALLOCATES = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided")


class Recorder(TorchDispatchMode):
    """Records what runs inside its ``with``, for ``replay``."""

    def __init__(self) -> None:
        super().__init__()
        self._patch = pytest.MonkeyPatch()
        self._tape: list[tuple[Callable[..., Any], Any, Any, list[Tensor]]] = []
        self._refused: list[str] = []  # raised at the end: torch's own state is not safe half way
        self._inside = False  # an operation of fogzo_kernels, whose own parts are not recorded

    def __enter__(self) -> Any:
        assert not self._tape, "one recorder holds one step"
        self._known = {storage(x) for x in gc.get_objects() if issubclass(type(x), Tensor)}
        self._known.add(None)
        patch = self._patch
        patch.setattr(_capture, "capturing", lambda: True)
        for op in _dispatch.OPS:
            patch.setattr(fk, op, self._recorded(getattr(fk, op)))
        for name in ("tolist", "numpy", "cpu"):
            patch.setattr(Tensor, name, self._noted(getattr(Tensor, name), f"Tensor.{name}()"))
        patch.setattr(torch, "default_generator", None)  # not to be read or written
        return super().__enter__()

    def __exit__(self, *args: Any) -> None:
        super().__exit__(*args)
        self._patch.undo()
        if args[0] is None and self._refused:
            raise AssertionError("\n".join(self._refused))

    def replay(self) -> None:
        """Run everything once more, into the same memory."""
        assert self._tape
        with torch.no_grad():
            for function, args, kwargs, before in self._tape:
                for old, new in zip(before, tensors(function(*args, **kwargs)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        kwargs = kwargs or {}
        if self._inside:
            return func(*args, **kwargs)
        name = func.overloadpacket.__name__
        self._check(func, name, args)
        self._check_known(name, (args, kwargs))
        if func.namespace == "fogzo":
            return self._run(func, args, kwargs)
        random = GENERATOR.get_state()
        result = func(*args, **kwargs)
        if not torch.equal(random, GENERATOR.get_state()):
            self._refuse(f"{name} draws random numbers")
        returns = [r.alias_info for r in func._schema.returns]
        viewed = any(info is not None and not info.is_write for info in returns)
        if viewed or name in ALLOCATES:
            self._known.update(map(storage, tensors(result)))
            return result
        self._note(func, args, kwargs, result)
        return result

    def _refuse(self, what: str) -> None:
        own = [f for f in traceback.extract_stack() if "recorder" not in f.filename]
        where = [f"{f.filename.rpartition('/')[2]}:{f.lineno}" for f in own[-3:]]
        self._refused.append(f"{what}, in {' > '.join(where)}")

    def _noted(self, function: Any, what: str) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            self._refuse(what)
            return function(*args, **kwargs)

        return run

    def _check(self, func: Any, name: str, args: Any) -> None:
        tags = [str(tag) for tag in UNCAPTURABLE if tag in func.tags]
        by_mask = name in INDEXED and any(
            isinstance(i, Tensor) and i.dtype in (torch.bool, torch.uint8) for i in args[1]
        )
        if tags or by_mask or name in FROM_HOST:
            self._refuse(f"{name} cannot be captured: {tags or 'the host takes part'}")

    def _check_known(self, name: str, values: Any) -> None:
        unknown = [t for t in tensors(values) if storage(t) not in self._known]
        if unknown:
            self._refuse(f"{name} takes a tensor made of the host's numbers, {unknown[0].shape}")

    def _recorded(self, function: Any) -> Any:
        def run(*args: Any, **kwargs: Any) -> Any:
            if self._inside or _array.traced():  # torch.vmap's: met again at dispatch
                return function(*args, **kwargs)
            self._check_known(function.__name__, (args, kwargs))
            return self._run(function, args, kwargs)

        return run

    def _run(self, function: Any, args: Any, kwargs: Any) -> Any:
        self._inside = True
        try:
            result = function(*args, **kwargs)
        finally:
            self._inside = False
        self._note(function, args, kwargs, result)
        return result

    def _note(self, function: Any, args: Any, kwargs: Any, result: Any) -> None:
        # new lists: the step may put other tensors into its own
        args, kwargs = tree_map(lambda leaf: leaf, (args, kwargs))
        found = tensors(result)
        self._known.update(map(storage, found))
        self._tape.append((function, args, kwargs, found))


def storage(tensor: Tensor) -> int | None:
    """The memory of a tensor; None of one that torch.vmap maps, whose parts come by themselves."""
    try:
        return tensor.untyped_storage()._cdata
    except NotImplementedError:
        return None


def tensors(values: Any) -> list[Tensor]:
    """All tensors inside, those of codes among them."""
    return list(_walk(values))


def _walk(values: Any) -> Iterator[Tensor]:
    if isinstance(values, Tensor):
        yield values
    elif isinstance(values, fk.Packed):
        yield values.data
    elif isinstance(values, fk.Flips):
        yield from (values.base, values.index, values.code, values.count)
    elif isinstance(values, dict):
        for value in values.values():
            yield from _walk(value)
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _walk(value)
