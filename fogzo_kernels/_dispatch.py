"""Which backend runs an operation: an order by device, each refusal with its reason."""

from __future__ import annotations

import contextlib
import contextvars
import functools
import importlib
import importlib.util
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeVar, cast

from . import _ahead, _array, _check, _convert, _native, _unreadable

F = TypeVar("F", bound=Callable[..., Any])

BACKENDS = ("cuda", "triton", "cpu", "reference")
# On a GPU cuda comes first for an operation that _ahead.TABLE has for its architecture.
ORDER = {"cpu": ("cpu", "reference"), "cuda": ("triton", "cuda", "reference")}
FILES = {"reference": "reference", "cpu": "native", "cuda": "native", "triton": "triton_kernel"}

# operation -> the package (room) that holds its reference and kernels
OPS = {
    "compute_scale": "compute_scale",
    "quantize": "quantize",
    "dequantize": "quantize",
    "pack": "pack",
    "unpack": "pack",
    "fake_quantize": "fake_quantize",
    "fake_quantize_backward": "fake_quantize",
    "whitened_norm": "whitened_norm",
    "noise": "noise",
    "perturb_quantize": "perturb_quantize",
    "perturb_quantize_many": "perturb_quantize",
    "probe_matmul": "probe_matmul",
    "quantize_activation": "quantize_activation",
    "assemble_gradient": "assemble_gradient",
    "assemble_gradient_many": "assemble_gradient",
    "hadamard": "hadamard",
    "hadamard_quantize": "hadamard_quantize",
}

_forced: contextvars.ContextVar[str | None] = contextvars.ContextVar("fogzo_backend", default=None)
_FROM_ENVIRONMENT = os.environ.get("FOGZO_BACKEND") or "auto"  # reading it costs 1 us a call
_chosen: dict[tuple[Any, ...], tuple[str, Callable[..., Any]]] = {}
_kernels: dict[tuple[str, str, str], bool] = {}
_logged: set[tuple[str, str]] = set()


def operation(function: F) -> F:
    """A public operation; torch.compile and torch.vmap take the registered one of ``_library``."""
    name = function.__name__
    names = function.__code__.co_varnames

    @functools.wraps(function)
    def run(*args: Any, **kwargs: Any) -> Any:
        if not _array.traced():
            try:
                return function(*args, **kwargs)
            except Exception as error:
                given = dict(zip(names, args, strict=False))
                _unreadable.explain(name, error, {**given, **kwargs})
                raise
        from ._library import traced

        return getattr(traced, name)(*args, **kwargs)

    return cast(F, run)


@contextlib.contextmanager
def use_backend(name: str) -> Iterator[None]:
    """Run every operation inside the ``with`` block on the named backend.

    Args:
        name: reference, cpu, triton, cuda, or auto (the order by device).

    Returns:
        A context manager; blocks may be nested, the innermost counts.

    Raises:
        ValueError: an unknown name.
        RuntimeError: from an operation inside the block that this backend refuses, with its reason.

    Example:
        >>> with use_backend("reference"):
        ...     pass
    """
    _check.choice("use_backend", "name", name, (*BACKENDS, "auto"))
    token = _forced.set(name)
    try:
        yield
    finally:
        _forced.reset(token)


def forced() -> str:
    """The backend that use_backend or FOGZO_BACKEND names, or auto."""
    name = _forced.get()
    if name is None:
        name = _FROM_ENVIRONMENT
        if name not in BACKENDS and name != "auto":
            _check.choice("FOGZO_BACKEND", "value", name, (*BACKENDS, "auto"))
    return name


def call(
    op: str,
    kind: str,
    device: str,
    case: tuple[Any, ...],
    scales: Sequence[Any] = (),
    /,
    out: Any = None,
    **kwargs: Any,
) -> Any:
    """Run ``op`` on the backend that takes this kind of array, device and case.

    ``case`` holds what a backend may refuse; the values of ``scales`` are checked here unless the
    backend's own launcher does it. The reference returns new arrays, copied into ``out`` here.
    """
    key = (op, kind, device, case, forced())
    found = _chosen.get(key)
    if found is None:
        found = _chosen[key] = _choose(*key)
    backend, function = found
    if backend == "cpu":
        try:
            return function(**kwargs, out=out)
        except ValueError as error:
            refused = error
        _check_values(op, device, scales)  # the launcher does not say which value
        raise refused
    _check_values(op, device, scales)
    if kind == "numpy":
        kwargs = {name: _convert.to_torch(value) for name, value in kwargs.items()}
    import torch

    with torch.no_grad():
        if backend != "reference":
            return function(**kwargs, out=out)
        result = function(**kwargs)
        result = _convert.dense(result)
        if out is not None:
            _convert.store(result, _convert.to_torch(out))
    return _convert.prefer(out, _convert.to_numpy(result) if kind == "numpy" else result)


class Launches(dict[str, Callable[..., Any] | None]):
    """By ``forced()``: the cpu backend's launch of the calls that share a plan, else None.

    A launch takes what the plan does not settle: arrays, outputs and scalars. None: ``call`` runs
    them. own: what ``prepare_<op>`` of the operation's room takes.
    """

    def __init__(self, op: str, view: _check.View, case: tuple[Any, ...], *own: Any) -> None:
        self._op, self._view, self._case, self._own = op, view, case, own

    def __missing__(self, name: str) -> Callable[..., Any] | None:
        op, view = self._op, self._view
        backend, _ = _choose(op, view.kind, view.device, self._case, name)
        launch = None
        if backend == "cpu":
            launch = getattr(_room(op, backend), f"prepare_{op}")(*self._own)
        self[name] = launch
        return launch


def run_prepared(
    op: str, launch: Callable[..., Any], device: str, scales: Sequence[Any], *arguments: Any
) -> Any:
    """The launch, whose error about a scale's value is said as a check would."""
    try:
        return launch(*arguments)
    except ValueError as error:
        refused = error
    _check_values(op, device, scales)
    raise refused


def _check_values(op: str, device: str, scales: Sequence[Any]) -> None:
    for i, scale in enumerate(scales if device == "cpu" else ()):
        _check.scale_values(op, scale, f"scales[{i}]" if len(scales) > 1 else "scale")


def _choose(
    op: str, kind: str, device: str, case: tuple[Any, ...], name: str
) -> tuple[str, Callable[..., Any]]:
    order, why = _order(op, device) if name == "auto" else ((name,), None)
    reasons: list[str] = []
    for backend in order:
        reason = refuses(op, backend, kind, device, case)
        if reason is None:
            _log(op, backend, [why] if why and backend == order[0] else reasons)
            module = _room(op, backend)
            suffix = f"_{backend}" if backend in ("cpu", "cuda") else ""
            return backend, getattr(module, op + suffix, _all_prepared)
        reasons.append(f"{backend}: {reason}")
    raise RuntimeError(f"{op}: no backend takes this call: {'; '.join(reasons)}")


def _all_prepared(**call: Any) -> None:
    """In the place of a cpu function that an operation's ``prepare`` leaves nothing to do."""
    raise AssertionError(f"a call that has a launch: {', '.join(call)}")


def _order(op: str, device: str) -> tuple[tuple[str, ...], str | None]:
    """The backends that auto asks, and why the first is not the usual one."""
    order = ORDER.get(device, ("reference",))
    shown = _ahead.shown(op.removesuffix("_many")) if device == "cuda" else None
    if shown is None:
        return order, None
    return ("cuda", *(name for name in order if name != "cuda")), shown.text("triton")


def refuses(
    op: str, backend: str, kind: str, device: str, case: tuple[Any, ...] | None
) -> str | None:
    """Why ``backend`` does not take this call, or None; case None asks about the operation."""
    reason = why_not(backend)
    if reason is not None:
        return reason
    if backend != "reference" and device != device_of(backend):
        return f"the arrays are on {device}"
    if backend in ("triton", "cuda") and kind == "numpy":
        return "it takes torch tensors only"
    module = _room(op, backend)
    if module is None:
        return f"{op} has no {backend} kernel"
    if backend == "reference":
        return None
    supports: Callable[..., str | None] = module.supports
    return supports(op, backend, case)


def has_kernel(op: str, device: str = "cpu") -> bool:
    """Whether torch tensors on a device type meet a backend other than the reference.

    Args:
        op: name of an operation. device: cpu, cuda, ...

    Returns:
        True where a backend of the order by device (or the one that use_backend or FOGZO_BACKEND
        names) takes the operation; a single call may still be refused.

    Raises:
        ValueError: no operation of that name.

    Example:
        >>> with use_backend("reference"):
        ...     has_kernel("probe_matmul")
        False
    """
    _check.choice("has_kernel", "op", op, tuple(OPS))
    name = forced()
    found = _kernels.get((op, device, name))
    if found is None:
        order = ORDER.get(device, ()) if name == "auto" else (name,)
        found = _kernels[op, device, name] = any(
            backend != "reference" and refuses(op, backend, "torch", device, None) is None
            for backend in order
        )
    return found


def device_of(backend: str) -> str:
    """Device type of the arrays that a kernel backend takes."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    on_host = {"cpu": True, "triton": interpreted, "cuda": bool(_native.CUDA_ON_HOST)}
    return "cpu" if on_host.get(backend) else "cuda"


def _room(op: str, backend: str) -> Any:
    name = f"{__package__}.{OPS[op]}.{FILES[backend]}"
    if name not in sys.modules and importlib.util.find_spec(name) is None:
        return None
    return importlib.import_module(name)


def _log(op: str, backend: str, reasons: list[str]) -> None:
    if "dispatch" in os.environ.get("FOGZO_LOG", "").split(",") and (op, backend) not in _logged:
        _logged.add((op, backend))
        why = f" ({'; '.join(reasons)})" if reasons else ""
        print(f"fogzo: {op}: {backend}{why}", file=sys.stderr)


def why_not(backend: str) -> str | None:
    """Why a backend cannot be used on this machine, or None where it can.

    Args:
        backend: reference, cpu, triton or cuda.

    Returns:
        The reason as a text that says how to get what is missing, or None.

    Raises:
        ValueError: no backend of that name.

    Example:
        >>> why_not("triton")  # doctest: +SKIP
        'no CUDA device'
    """
    _check.choice("why_not", "backend", backend, BACKENDS)
    if backend == "cpu":
        return _native.why_not_cpu()
    if backend == "cuda":
        return _native.why_not_cuda()
    if not _array.have_torch():
        return "torch is not installed: pip install torch"
    if backend == "reference":
        return None
    return _why_not_triton()


def _why_not_triton() -> str | None:
    import torch

    if device_of("triton") == "cuda" and not torch.cuda.is_available():
        return "no CUDA device"
    if importlib.util.find_spec("triton") is None:
        return "triton is not installed: pip install triton"
    return None


def backends() -> tuple[str, ...]:
    """The backends that can be used on this machine, in the order of preference.

    Returns:
        Names out of cuda, triton, cpu and reference; empty where nothing of them can be used.

    Example:
        >>> "reference" in backends()  # where torch is installed
        True
    """
    return tuple(name for name in BACKENDS if why_not(name) is None)


def capabilities() -> dict[str, dict[str, str | None]]:
    """For each operation and backend: None where it is taken, else the reason why it is not.

    A backend may still refuse a single call (a grid, a form), with its reason.

    Returns:
        {operation: {backend: None or a text}}, of torch tensors on the backend's device.

    Example:
        >>> capabilities()["noise"]["reference"] is None  # where torch is installed
        True
    """
    return {
        op: {name: refuses(op, name, "torch", device_of(name), None) for name in BACKENDS}
        for op in OPS
    }
