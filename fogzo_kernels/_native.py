"""The two optional extension modules: loading them, and turning a status into the usual error."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple, NoReturn

from . import _array, _errors, _tables, _unreadable

BUILD_HINT = (
    "install a C++20 compiler and Python.h (Debian: apt-get install -y g++ python3-dev) and "
    "reinstall fogzo-kernels from source"
)


# A ``_cuda`` that was built for the host (tests/cuda_on_host) and takes arrays of the CPU.
CUDA_ON_HOST = os.environ.get("FOGZO_CUDA_ON_HOST")


class Place(NamedTuple):
    """Where a launcher runs: its module, its last argument, the device of new arrays."""

    name: str  # _cpu or _cuda
    module: Any
    last: int  # threads or the stream
    device: Any


@functools.cache
def module(name: str) -> Any:
    """Extension module ``_cpu`` or ``_cuda``, or None where it is not built."""
    if name == "_cuda" and CUDA_ON_HOST:
        return _from_file(f"fogzo_kernels.{name}", CUDA_ON_HOST)
    try:
        return importlib.import_module(f"fogzo_kernels.{name}")
    except ModuleNotFoundError as error:
        if error.name != f"fogzo_kernels.{name}":
            raise
        return None


def _from_file(name: str, path: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None, path
    assert spec.loader is not None, path
    found = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(found)
    return found


def optional(op: str, name: str, array: Any, kept: list[Any]) -> int:
    """Address of an argument that may be None, for which launchers take 0; ``kept``: of copies."""
    if array is None:
        return 0
    _unreadable.memory(op, name, array)
    return _array.address(array, kept)


@functools.cache
def why_not_cpu() -> str | None:
    if module("_cpu") is None:
        return f"the native module fogzo_kernels._cpu is not built: {BUILD_HINT}"
    return None


@functools.cache
def why_not_cuda() -> str | None:
    cuda = module("_cuda")
    if cuda is None:
        return (
            "the native module fogzo_kernels._cuda is not built: install the CUDA toolkit (nvcc) "
            "and reinstall fogzo-kernels with FOGZO_CUDA=on"
        )
    return None if cuda.device_count() > 0 else "no CUDA device"


def cpu() -> Any:
    """The ``_cpu`` module; dispatch has asked ``why_not_cpu`` before."""
    return module("_cpu")


def on_cpu() -> Place:
    return _cpu_place(_array.threads())


@functools.cache
def _cpu_place(threads: int) -> Place:
    return Place("_cpu", module("_cpu"), threads, "cpu")


def one_output(op: str, kind: str, new: Callable[[], Any], *settled: Any) -> Callable[..., Any]:
    """The cpu launch of an operation whose launcher takes inputs, the output, settled, threads.

    new: makes the output where none is given.
    """
    launcher = getattr(cpu(), op)
    address, pointer = _array.address_of(kind), _array.pointer_of(kind)

    def launch(out: Any, *inputs: Any) -> Any:
        kept: list[Any] = []  # copies must outlive the launch
        result = new() if out is None else out
        addresses = [address(array, kept) for array in inputs]
        status = launcher(*addresses, pointer(result), *settled, _array.threads())
        if status:
            raise_on(op, "_cpu", status)
        return result

    return launch


@contextlib.contextmanager
def on_cuda(device: Any) -> Iterator[Place]:
    """Launches go to the device's current stream inside the ``with`` block."""
    cuda = module("_cuda")
    if CUDA_ON_HOST:
        yield Place("_cuda", cuda, 0, device)
        return
    import torch

    with torch.cuda.device(device):
        yield Place("_cuda", cuda, int(torch.cuda.current_stream(device).cuda_stream), device)


def one_output_cuda(
    op: str, out: Any, shape: tuple[int, ...], dtype: str, inputs: tuple[Any, ...], *settled: Any
) -> Any:
    """A cuda launch whose launcher takes inputs, the output, settled, the stream."""
    kept: list[Any] = []  # copies must outlive the launch
    with on_cuda(inputs[0].device) as at:
        result = _array.empty(shape, dtype, "torch", at.device) if out is None else out
        addresses = [_array.address(array, kept) for array in inputs]
        status = getattr(at.module, op)(*addresses, _array.pointer(result), *settled, at.last)
        raise_on(op, at.name, status)
    return result


def workspace(at: Place, size: int) -> Any:
    """So many bytes on a place's device, for the length of a launch."""
    return _array.empty((size,), "uint8", "torch", at.device)


def scalars(draw: Any, gamma: Any = 0.0, norm: Any = 0.0) -> tuple[Any, ...]:
    """The members of fogzo_cuda_scalars: host numbers, or addresses of those on the device."""
    given = (draw.seed, draw.step, gamma, norm)
    on_device = [_array.kind(value) is not None for value in given]
    addresses = [
        _array.pointer(v) if there else 0 for v, there in zip(given, on_device, strict=True)
    ]
    return (*addresses, *(0 if there else v for v, there in zip(given, on_device, strict=True)))


def table(surrogate: str, noise: str, device: Any) -> int:
    """Address of the atanh table on a device, 0 where the noise does not read it."""
    if surrogate != "tanh" or noise != "published":
        return 0
    if str(device) == "cpu":
        return _tables.atanh_table().buffer_info()[0]
    return int(_device_table(str(device)).data_ptr())


def table_for(calls: list[dict[str, Any]], device: Any = "cpu") -> int:
    """The table's address on a device where the noise of any of these calls reads it, else 0."""
    for call in calls:
        draw = call["draw"]
        if draw.surrogate == "tanh":
            return table("tanh", draw.noise, device)
    return 0


@functools.cache
def _device_table(device: str) -> Any:
    import torch

    return torch.tensor(_tables.atanh_table(), dtype=torch.float32, device=device)


def raise_on(op: str, name: str, status: int) -> None:
    """Do nothing for status 0, else raise the ValueError that the launcher's text describes."""
    if status:
        _raise(op, module(name).status_text(status))


def _raise(op: str, text: str) -> NoReturn:
    argument, _, rest = text.partition(" ")
    got, _, expected = rest.partition(", expected ")
    _errors.fail(op, argument, got, expected)
