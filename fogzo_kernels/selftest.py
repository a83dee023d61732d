"""One hash over perturbed codes of fixed cases: equal on every machine and backend.

The inputs are made by ``noise`` itself and the constants are exact in float32, so that a program in
any language that follows docs/algorithm.md finds the same number.
"""

from __future__ import annotations

from typing import Any

from . import _array, _convert, _dispatch
from ._surrogate import NOISES
from ._types import Grid
from .noise import noise
from .perturb_quantize import perturb_quantize

SHAPES = ((1, 1), (3, 127), (5, 129), (7, 1031), (2, 16411))  # around one run, tile and block
GAMMA = 0.25
NORM = 8.0
SEED = 0x0123456789ABCDEF
PAIRS = (
    (Grid("sign"), "hardtanh"),
    (Grid("sign"), "tanh"),
    (Grid("sign"), "approx_sign"),
    (Grid("ternary"), "clipped"),
    (Grid("mid-rise", 2), "identity"),
    (Grid("mid-rise", 3), "clipped"),
    (Grid("mid-tread", 2), "clipped"),
    (Grid("mid-tread", 4), "trust"),
    (Grid("mid-tread", 8), "clipped"),
)


def digest(backend: str | None = None) -> str:
    """FNV-1a, 64 bits, over the codes of every case, as 16 hexadecimal digits.

    Case c is a triple of shape, pair of grid and surrogate, and noise, in this order of loops. Its
    weight and gradient are twice the identity noise of the shape (rows of a wider tensor: offset c,
    row_pitch K + c) at seed SEED, step c, probes 0 and 1, tensor 0; its scale is 1/2 for even c,
    else (r % 3 + 1) / 4 for row r; the codes are both sides of probes 0 and 1 at SEED, step c,
    tensor 1, the same offset and pitch, GAMMA and NORM.

    Args:
        backend: a backend's name; None takes the one that auto picks.

    Raises:
        RuntimeError: the backend refuses, with its reason.

    Example:
        >>> len(digest())
        16
    """
    value = 0xCBF29CE484222325
    with _dispatch.use_backend(backend or _dispatch.forced()):
        for codes in _cases():
            for byte in _convert.data_bytes(codes):
                value = (value ^ byte) * 0x100000001B3 % 2**64
    return f"{value:016x}"


def _cases() -> Any:
    case = 0
    for shape in SHAPES:
        for grid, surrogate in PAIRS:
            for kind in NOISES:
                yield _codes(case, shape, grid, surrogate, kind)
                case += 1


def _codes(case: int, shape: tuple[int, int], grid: Grid, surrogate: str, kind: str) -> Any:
    where: dict[str, Any] = {
        "offset": case,
        "row_pitch": shape[1] + case,
        "seed": SEED,
        "step": case,
    }
    w, grad = (_inputs(shape, probe, where) for probe in (0, 1))
    scale = _scale(case, shape[0])
    return perturb_quantize(
        w,
        grad,
        scale,
        grid,
        surrogate,
        tensor=1,
        probes=2,
        gamma=GAMMA,
        norm=NORM,
        noise=kind,
        form="codes",
        **where,
    )


def _inputs(shape: tuple[int, int], probe: int, where: dict[str, Any]) -> Any:
    u = noise(shape, "identity", tensor=0, probe=probe, device=_device(), **where)
    u *= 2
    return u


def _scale(case: int, rows: int) -> Any:
    kind = _array.default_kind()
    a = _array.empty(() if case % 2 == 0 else (rows, 1), "float32", kind, _device() or "cpu")
    if case % 2 == 0:
        a[...] = 0.5
    else:
        for r in range(rows):
            a[r, 0] = (r % 3 + 1) / 4
    return a


def _device() -> str | None:
    """Where the forced backend's arrays lie; None where that is not to be chosen."""
    name = _dispatch.forced()
    return _dispatch.device_of(name) if name in ("cuda", "triton") else None
