"""DESIGN sections 2 and 3 transcribed a second time, in Python integers and NumPy.

Written from the document alone, without the code it judges: the torch reference must equal it bit
for bit. Every function takes and gives NumPy arrays of float32 unless it says otherwise.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np

f32 = np.float32
MASK = 2**32 - 1
SIGN_SURROGATES = ("hardtanh", "tanh", "approx_sign")
SURROGATES = ("identity", "clipped", "hardtanh", "tanh", "approx_sign", "trust")
RADII = {
    "identity": 1 / (2 * math.sqrt(3)),
    "clipped": 1 / (2 * math.sqrt(3)),
    "trust": 1 / (2 * math.sqrt(3)),
    "hardtanh": 1 / math.sqrt(3),
    "tanh": math.pi / math.sqrt(12),
    "approx_sign": 1 / math.sqrt(6),
}


def philox(seed: int, counter: tuple[Any, Any, Any, Any]) -> tuple[Any, Any, Any, Any]:
    """Philox4x32-7: four words; a counter word is an int or a uint64 array."""
    k0, k1 = seed % 2**64 & MASK, seed % 2**64 >> 32
    c0, c1, c2, c3 = counter
    for _ in range(7):
        left, right = c0 * 0xD2511F53, c2 * 0xCD9E8D57
        c0, c1, c2, c3 = (
            (right >> 32) ^ c1 ^ k0,
            right & MASK,
            (left >> 32) ^ c3 ^ k1,
            left & MASK,
        )
        k0, k1 = (k0 + 0x9E3779B9) & MASK, (k1 + 0xBB67AE85) & MASK
    return c0, c1, c2, c3


def view(shape: tuple[int, ...]) -> tuple[int, int]:
    return (1, shape[0]) if len(shape) == 1 else (shape[0], math.prod(shape[1:]))


def numbers(shape: tuple[int, ...], offset: int = 0, row_pitch: int | None = None) -> Any:
    """Element numbers of a local view within the whole tensor, uint64 [rows, cols]."""
    rows, cols = view(shape)
    pitch = cols if row_pitch is None else row_pitch
    r = np.arange(rows, dtype=np.uint64)[:, None]
    return offset + r * pitch + np.arange(cols, dtype=np.uint64)


def _words(block: Any, probe: int, step: int, tensor: int, seed: int) -> Any:
    unique, where = np.unique(block, return_inverse=True)
    words = philox(seed, (unique, probe, step, tensor))
    return np.stack(words).astype(np.uint64)[:, where.reshape(block.shape)]


def halves(k: Any, *, seed: int, step: int, tensor: int, probe: int) -> Any:
    """The 16-bit half of each element number, uint64."""
    tile, j, i = k // 1024, (k % 1024) // 128, k % 128
    words = _words(tile * 128 + i, probe, step, tensor, seed)
    word = np.take_along_axis(words, (j // 2)[None].astype(np.int64), 0)[0]
    return (word >> (16 * (j % 2))) & 0xFFFF


def bits(k: Any, *, seed: int, step: int, tensor: int, probe: int) -> Any:
    """The rademacher bit of each element number, uint64."""
    tile, bit = k // 16384, (k % 16384) // 128
    words = _words(tile * 128 + k % 128, probe, step, tensor, seed)
    word = np.take_along_axis(words, (bit // 32)[None].astype(np.int64), 0)[0]
    return (word >> (bit % 32)) & 1


def probe_sign(seed: int, step: int, probe: int) -> Any:
    word, *_ = philox(seed, (0, probe, step, 0xFFFFFFFF))
    return f32(-1) if word >> 31 else f32(1)


def radius(surrogate: str, noise: str = "published") -> float:
    if noise == "rademacher":
        return 1.0 if surrogate in SIGN_SURROGATES else 0.5
    return RADII[surrogate]


@functools.cache
def atanh_table() -> Any:
    return np.array([math.atanh((2 * k + 1) / 65536) for k in range(32768)]).astype(f32)


def eu_of_half(surrogate: str, h: Any) -> Any:
    """e u in bins from a half."""
    z = ((2 * np.asarray(h, np.int64) + 1 - 65536) / 65536).astype(f32)
    if surrogate == "hardtanh":
        return z
    if surrogate == "approx_sign":
        return np.sign(z) * (f32(1) - np.sqrt(f32(1) - abs(z)))
    if surrogate == "tanh":
        magnitude = (np.abs(2 * np.asarray(h, np.int64) + 1 - 65536) - 1) // 2
        return np.sign(z) * atanh_table()[magnitude]
    return z / f32(2)


def eu(
    shape: tuple[int, ...],
    surrogate: str,
    noise: str = "published",
    *,
    offset: int = 0,
    row_pitch: int | None = None,
    **where: int,
) -> Any:
    """e u in bins, [rows, cols]."""
    k = numbers(shape, offset, row_pitch)
    if noise == "rademacher":
        e = f32(radius(surrogate, noise))
        return np.where(bits(k, **where) == 1, -e, e)
    return eu_of_half(surrogate, halves(k, **where))


def noise(shape: tuple[int, ...], surrogate: str, noise: str = "published", **where: Any) -> Any:
    e = f32(radius(surrogate, noise))
    return (eu(shape, surrogate, noise, **where) / e).reshape(shape)


def levels(kind: str, b: int | None) -> tuple[float, float, float, int]:
    """v_min, v_max, distance of values, number of values."""
    if kind == "sign":
        return -1.0, 1.0, 2.0, 2
    if kind == "ternary":
        return -1.0, 1.0, 1.0, 3
    assert b is not None
    shift = 0.5 if kind == "mid-rise" else 0.0
    return -(2.0 ** (b - 1)) + shift, 2.0 ** (b - 1) - 1 + shift, 1.0, 2**b


def value(x: Any, kind: str, b: int | None) -> Any:
    """value(x) in bins; a NaN gives v_min."""
    low, high, _, _ = levels(kind, b)
    if kind == "sign":
        result = np.where(x >= 0, f32(1), f32(-1))
    elif kind == "mid-rise":
        result = np.clip(np.rint(x - f32(0.5)), f32(low - 0.5), f32(high - 0.5)) + f32(0.5)
    else:
        result = np.clip(np.rint(x), f32(low), f32(high))
    return np.where(np.isnan(x), f32(low), result + f32(0))


def code(x: Any, kind: str, b: int | None) -> Any:
    low, _, step, _ = levels(kind, b)
    return ((value(x, kind, b) - f32(low)) / f32(step)).astype(np.uint8)


def spread(scale: Any, rows: int, cols: int) -> Any:
    """A scale of shape (), [N, 1] or [N, G, 1] as [rows, cols]."""
    if scale.shape == ():
        return np.full((rows, cols), scale)
    per_row = scale.reshape(rows, scale.shape[1])
    return per_row.repeat(cols // per_row.shape[1], axis=1)


def bins(w: Any, scale: Any) -> tuple[Any, Any]:
    """x and a as [rows, cols]."""
    rows, cols = view(w.shape)
    a = spread(scale, rows, cols)
    return w.reshape(rows, cols) * (f32(1) / a), a


def fake_quantize(w: Any, scale: Any, kind: str, b: int | None) -> Any:
    x, a = bins(w, scale)
    return np.where(np.isnan(x), x, a * value(x, kind, b)).reshape(w.shape)


def slope(x: Any, surrogate: str, kind: str, b: int | None) -> Any:
    """h'(x): for the masks exactly 0 or 1 (float32), in float64 for tanh and approx_sign."""
    low, high, _, _ = levels(kind, b)
    wide = x.astype(np.float64)
    if surrogate == "identity":
        return np.ones_like(x)
    if surrogate == "clipped":
        return ((x >= low) & (x <= high)).astype(f32)
    if surrogate == "hardtanh":
        return ((x >= -1) & (x <= 1)).astype(f32)
    if surrogate == "tanh":
        return 1 - np.tanh(wide) ** 2
    if surrogate == "approx_sign":
        return np.where(abs(wide) <= 1, 2 - 2 * abs(wide), 0.0)
    return (abs(value(x, kind, b) - x) <= 0.5).astype(f32)


def scale_slope(x: Any, kind: str, b: int | None, limit: float | None = None) -> Any:
    """t of the scale gradient, float64."""
    low, high = levels(kind, b)[:2] if limit is None else (-f32(limit), f32(limit))
    v, wide = value(x, kind, b).astype(np.float64), x.astype(np.float64)
    return np.where((x >= low) & (x <= high), v - wide, v)


def whitened(grad: Any, scale: Any, surrogate: str, noise: str = "published") -> Any:
    rows, cols = view(grad.shape)
    e = f32(radius(surrogate, noise))
    return grad.reshape(rows, cols) * (spread(scale, rows, cols) * e)


def direction(
    grad: Any,
    scale: Any,
    surrogate: str,
    noise: str = "published",
    *,
    seed: int,
    step: int,
    tensor: int,
    probe: int,
    gamma: float,
    norm: Any,
    offset: int = 0,
    row_pitch: int | None = None,
) -> Any:
    """d in bins, [rows, cols]."""
    gw = whitened(grad, scale, surrogate, noise)
    noisy = eu(
        grad.shape, surrogate, noise, offset=offset, row_pitch=row_pitch,
        seed=seed, step=step, tensor=tensor, probe=probe,
    )  # fmt: skip
    norm = f32(norm)
    c1 = f32(radius(surrogate, noise) * math.sqrt(1 - gamma))
    along = f32(0) if norm < 2.0**-100 else (c1 * probe_sign(seed, step, probe)) / norm
    return along * gw + f32(math.sqrt(gamma)) * noisy


def perturbed(
    w: Any, grad: Any, scale: Any, surrogate: str, noise: str, probes: int, first: int, **where: Any
) -> list[Any]:
    """x + d and x - d of each probe in turn, [rows, cols] each."""
    x, _ = bins(w, scale)
    sides = []
    for i in range(first, first + probes):
        d = direction(grad, scale, surrogate, noise, probe=i, **where)
        sides += [x + d, x - d]
    return sides


def assemble(
    grad: Any, scale: Any, differences: Any, surrogate: str, noise: str, first: int, **where: Any
) -> Any:
    rows, cols = view(grad.shape)
    a, e = spread(scale, rows, cols), f32(radius(surrogate, noise))
    total = None
    for i, difference in enumerate(differences.astype(f32)):
        term = difference * direction(grad, scale, surrogate, noise, probe=first + i, **where)
        total = term if total is None else total + term
    n = f32(len(differences))
    return (total * (f32(1) / (n * ((e * e) * a)))).reshape(grad.shape)


def pack(codes: Any, stored: int) -> Any:
    """uint8 [..., ceil(K stored / 8)] of codes [..., K], by integers alone."""
    per_byte = 8 // stored
    size = -(-codes.shape[-1] // per_byte)
    padded = np.zeros((*codes.shape[:-1], size * per_byte), np.int64)
    padded[..., : codes.shape[-1]] = codes
    parts = padded.reshape(*codes.shape[:-1], size, per_byte) << (np.arange(per_byte) * stored)
    return parts.sum(-1).astype(np.uint8)


def hadamard(x: Any, block: int = 128) -> Any:
    """Float32 butterflies of stride 1, 2, .. on blocks; a remainder in its powers of two."""
    out, begin, size = x.copy(), 0, x.shape[-1]
    while begin < size:
        m = block
        while m > size - begin:
            m //= 2
        part = out[..., begin : begin + m].copy()
        stride = 1
        while stride < m:
            for i in range(m):
                if not i & stride:
                    p, q = part[..., i].copy(), part[..., i + stride].copy()
                    part[..., i], part[..., i + stride] = p + q, p - q
            stride *= 2
        out[..., begin : begin + m] = part * f32(m**-0.5)
        begin += m
    return out


def quantized_sides(sides: list[Any], kind: str, b: int | None, shape: tuple[int, ...]) -> Any:
    """Codes of every side, uint8 [sides, *shape]."""
    return np.stack([code(x, kind, b).reshape(shape) for x in sides])
