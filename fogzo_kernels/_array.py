"""One adapter for the array kinds the operations accept: torch tensors and NumPy arrays.

Operations return the caller's kind. Native kernels read either through a pointer; backends written
in torch get a tensor that shares the array's memory.
"""

from __future__ import annotations

import functools
import importlib.util
import operator
import os
import sys
from collections.abc import Callable
from typing import Any

from . import _errors

Array = Any
_DTYPE_NAMES: dict[Any, str] = {}
KINDS: dict[type, str | None] = {}  # what ``kind`` found for the types it has met
_FORKED: list[bool] = []  # not empty in a forked process
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=lambda: _FORKED.append(True))


def _imported_in_a_fork() -> bool:
    """Whether multiprocessing forked this process; one that it spawned has a command of its own."""
    process = sys.modules.get("multiprocessing.process")
    forked = process is not None and process.parent_process() is not None
    return forked and not any("multiprocessing" in word for word in sys.orig_argv)


if _imported_in_a_fork():
    _FORKED.append(True)


def have_torch() -> bool:
    return "torch" in sys.modules or importlib.util.find_spec("torch") is not None


def traced() -> bool:
    """Whether torch sees this call's tensors otherwise than by their memory.

    torch.compile traces it, torch.vmap maps it over a hidden dimension, or a TorchDispatchMode is
    active, as in make_fx and FakeTensorMode.
    """
    torch = sys.modules.get("torch")
    return torch is not None and (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or torch._C._len_torch_dispatch_stack() > 0
    )


def kind(array: object) -> str | None:
    """'torch', 'numpy', or None for anything else."""
    cls = type(array)
    return KINDS[cls] if cls in KINDS else KINDS.setdefault(cls, _find_kind(array))


def _find_kind(array: object) -> str | None:
    torch = sys.modules.get("torch")
    if torch is not None and isinstance(array, torch.Tensor):
        return "torch"
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(array, numpy.ndarray):
        return "numpy"
    return None


def default_kind() -> str:
    """The kind of a result that no argument determines: torch where it is installed."""
    return "torch" if have_torch() else "numpy"


def common_kind(op: str, **arrays: object) -> str:
    """The kind that all arguments share."""
    found: str | None = None
    first = ""
    for name, array in arrays.items():
        this = kind(array)
        if this is None:
            _errors.fail(
                op,
                name,
                "is None" if array is None else f"is a {type(array).__name__}",
                "a torch tensor or a NumPy array",
                TypeError,
            )
        if found is None:
            found, first = this, name
        elif this != found:
            _errors.fail(op, name, f"is a {this} array", f"{found}, as {first} is", TypeError)
    assert found is not None
    return found


def signature(array: Array) -> tuple[Any, ...] | None:
    """All that checks of kind, dtype, shape, device and layout read of an array, to be compared."""
    cls = type(array)
    this = KINDS[cls] if cls in KINDS else kind(array)
    if this == "torch":
        return array.dtype, array.shape, array.is_cpu or array.device, array.layout
    if this == "numpy":
        return array.dtype, array.shape
    return None if array is None else (cls,)


def signatures(a: Array, b: Array, c: Array) -> tuple[Any, ...]:
    """``signature`` of three arrays: flat where all are torch tensors, which is the quickest."""
    if KINDS.get(type(a)) == KINDS.get(type(b)) == KINDS.get(type(c)) == "torch":
        return (
            a.dtype, a.shape, a.is_cpu or a.device, a.layout,
            b.dtype, b.shape, b.is_cpu or b.device, b.layout,
            c.dtype, c.shape, c.is_cpu or c.device, c.layout,
        )  # fmt: skip
    return signature(a), signature(b), signature(c)


def is_strided(tensor: Array) -> bool:
    """Whether a tensor's elements have addresses: it is neither sparse nor jagged."""
    return bool(tensor.layout is sys.modules["torch"].strided)


def dtype_name(array: Array) -> str:
    dtype = array.dtype
    name = _DTYPE_NAMES.get(dtype)
    if name is None:
        name = _DTYPE_NAMES[dtype] = str(dtype).removeprefix("torch.")
    return name


def device_type(array: Array) -> str:
    return type_of(getattr(array, "device", "cpu"))


def is_plain(value: object, dtype: str) -> bool:
    """Whether it is a 0-dim torch tensor of a dtype on the CPU."""
    if KINDS.get(type(value)) != "torch":
        return False
    tensor: Any = value
    return tensor.is_cpu and tensor.ndim == 0 and _DTYPE_NAMES.get(tensor.dtype) == dtype


def type_of(device: Any) -> str:
    """'cpu', 'cuda', ... of a torch device, or of its name."""
    return str(getattr(device, "type", device))


def place(op: str, device: Any, kind: str) -> str:
    """Device type of what ``empty`` takes as device; NumPy has the cpu only."""
    if isinstance(device, str) and device == "cpu":
        return device
    if kind == "numpy":
        _errors.fail(op, "device", f"is {device!r}", "'cpu' for NumPy arrays")
    import torch

    try:
        found = torch.device(device).type
    except (RuntimeError, TypeError):
        found = ""
    if not found or (found == "cuda" and not torch.cuda.is_available()):
        _errors.fail(op, "device", f"is {device!r}", "a device that torch can use here")
    return found


def is_contiguous(array: Array) -> bool:
    if kind(array) == "numpy":
        return bool(array.flags.c_contiguous)
    return bool(array.is_contiguous())


def contiguous(array: Array) -> Array:
    """The array itself where it is row-major, dense and aligned, else a copy that is."""
    kept: list[Array] = []
    address(array, kept)
    return kept[0] if kept else array


def address(array: Array, kept: list[Array]) -> int:
    """Address of the elements in row-major order: its own, or that of a copy put into ``kept``."""
    return (_tensor_address if kind(array) == "torch" else _numpy_address)(array, kept)


def address_of(kind: str) -> Callable[[Array, list[Array]], int]:
    """``address`` for arrays of one kind."""
    return _tensor_address if kind == "torch" else _numpy_address


def _tensor_address(array: Array, kept: list[Array]) -> int:
    if array.is_contiguous() and not array.is_neg():
        start: int = array.data_ptr()
        if not start & 7 or start % array.element_size() == 0:
            return start
    dense = array.contiguous().resolve_neg()
    if dense is array or dense.data_ptr() % dense.element_size():
        dense = dense.clone()
    kept.append(dense)
    start = dense.data_ptr()
    return start


def _numpy_address(array: Array, kept: list[Array]) -> int:
    flags = array.flags
    if not (flags.c_contiguous and flags.aligned):
        array = array.copy()
        kept.append(array)
    start: int = array.ctypes.data
    return start


def begin_write(array: Array) -> tuple[str, str] | None:
    """What keeps a kernel from writing to the array's memory, and what is expected, or None.

    With None autograd is told of the write: it refuses to go back through what it saved before.
    """
    plain = KINDS.get(type(array)) == "torch" and array.is_contiguous() and not array.is_neg()
    address = array.data_ptr() if plain else 0
    plain = address and not address & 7 and not array.requires_grad
    reason = None if plain else _why_not_written(array)
    if plain or (reason is None and kind(array) == "torch"):
        _version_counter()(array)
    return reason


def _why_not_written(array: Array) -> tuple[str, str] | None:
    if not is_contiguous(array):
        return "is not contiguous", "a contiguous array"
    if not has_memory(array):
        return NO_MEMORY
    size = array.itemsize
    if pointer(array) % size:
        return f"is at an address that is no multiple of {size} bytes", "an aligned array"
    if kind(array) == "numpy":
        return None if array.flags.writeable else ("is read-only", "a writable array")
    if array.is_neg():
        return "is a lazy negation", "a plain tensor"
    if array.requires_grad and sys.modules["torch"].is_grad_enabled():
        return "requires grad", "a tensor that does not, or torch.no_grad()"
    return None


@functools.cache
def _version_counter() -> Callable[[Array], None]:
    import torch

    increment: Callable[[Array], None] = torch.autograd.graph.increment_version
    return increment


NO_MEMORY = "has no memory of its own", "a tensor that has"  # got, expected


def has_memory(array: Array) -> bool:
    """Whether the elements have an address (there may be none); also where none is expected: meta.

    Not so for subclasses that wrap other tensors, fake tensors and storages that were resized to 0.
    """
    if kind(array) == "numpy" or array.data_ptr() or array.is_meta:
        return True
    return bool(array.numel() == 0)


_data_ptr = operator.methodcaller("data_ptr")


def pointer(array: Array) -> int:
    """Address of the first element; the caller keeps the array alive."""
    start: int = array.ctypes.data if kind(array) == "numpy" else array.data_ptr()
    return start


def pointer_of(kind: str) -> Callable[[Array], int]:
    """``pointer`` for arrays of one kind."""
    return operator.attrgetter("ctypes.data") if kind == "numpy" else _data_ptr


def empty(shape: tuple[int, ...], dtype: str, kind: str, device: Any = "cpu") -> Array:
    if kind == "numpy":
        import numpy

        return numpy.empty(shape, dtype=dtype)
    make, dtypes, cpu = _torch_maker()
    where = cpu if device == "cpu" else device
    return make(shape, _strides(shape), dtype=dtypes[dtype], device=where)


def maker(shape: tuple[int, ...], dtype: str, kind: str) -> Any:
    """``empty`` of one shape on the CPU, as a function without arguments."""
    if kind == "numpy":
        return functools.partial(empty, shape, dtype, kind)
    make, dtypes, cpu = _torch_maker()
    return functools.partial(make, shape, _strides(shape), dtype=dtypes[dtype], device=cpu)


@functools.cache
def _torch_maker() -> tuple[Any, dict[str, Any], Any]:
    """torch's quickest maker, its dtypes by name, and the CPU, whose name takes 2 us to read."""
    import torch

    names = ("float32", "float64", "bfloat16", "float16", "int8", "uint8", "int32", "int64")
    dtypes = {name: getattr(torch, name) for name in names}
    return torch.empty_strided, dtypes, torch.device("cpu")


@functools.lru_cache(maxsize=4096)
def _strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Of a row-major array of this shape."""
    strides, step = [], 1
    for size in reversed(shape):
        strides.append(step)
        step *= max(size, 1)
    return tuple(reversed(strides))


def zeros(shape: tuple[int, ...], dtype: str, kind: str, device: Any = "cpu") -> Array:
    array = empty(shape, dtype, kind, device)
    array[...] = 0
    return array


def threads() -> int:
    """Threads a native kernel may use: torch's setting where torch is loaded, else one.

    A forked process gets one: the threads of its parent's OpenMP are not there, and waiting for
    them would take for ever.
    """
    torch = sys.modules.get("torch")
    return int(torch.get_num_threads()) if torch is not None and not _FORKED else 1


def extent(array: Array) -> tuple[int, int]:
    """First and one-past-last byte address that the array may touch; (0, 0) where it is empty."""
    if KINDS.get(type(array)) == "torch" and array.is_contiguous():
        start = array.data_ptr()
        return (start, start + array.nbytes) if start else (0, 0)  # none on the meta device
    if 0 in array.shape:
        return 0, 0
    size, strides = (
        (array.itemsize, array.strides)
        if kind(array) == "numpy"
        else (array.element_size(), [s * array.element_size() for s in array.stride()])
    )
    spans = [(n - 1) * s for n, s in zip(array.shape, strides, strict=True)]
    start = pointer(array)
    return start + sum(s for s in spans if s < 0), start + sum(s for s in spans if s > 0) + size


def device(array: Array) -> Any:
    """What ``empty`` takes as device."""
    return "cpu" if kind(array) == "numpy" else array.device


def float32(array: Array) -> Array:
    """The array itself where it is float32, else rounded once to it."""
    if dtype_name(array) == "float32":
        return array
    return array.astype("float32") if kind(array) == "numpy" else array.float()
