"""Public operation: the noise u of a surrogate, from its coordinates alone."""

from __future__ import annotations

from typing import Any

from .. import _array, _check, _dispatch, _outputs


@_dispatch.operation
def noise(
    shape: tuple[int, ...],
    surrogate: str,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    device: Any = None,
    out: Any = None,
) -> Any:
    """The random direction u: mean 0, variance 1, the same bits on every backend.

    u = (e u) / float32(e), where e u is made from 16 random bits h of Philox4x32-7, key seed,
    counter (block, probe, step, tensor): with z = (2h + 1 - 65536) / 65536, e u is z / 2 for
    identity, clipped and trust, z for hardtanh, sign(z) (1 - sqrt(1 - abs z)) for approx_sign,
    atanh z for tanh. rademacher: u = +-1 from one random bit.

    Args:
        shape: any shape of at least one dimension, viewed as [N, K] = [shape[0], rest].
        surrogate: identity, clipped, hardtanh, tanh, approx_sign or trust.
        seed: int mod 2^64, or a 0-dim int64 array (its bits).
        step: int in 0..2^32-1, or a 0-dim int64 array; probe: int in 0..2^32-1.
        tensor: number of the tensor, 0..2^32-2.
        noise: "published" or "rademacher".
        offset, row_pitch: in elements: local element (r, c) of the view is element
            offset + r * row_pitch + c of the whole tensor; row_pitch None is the view's width.
        device: where torch makes the result (None: cpu).
        out: float32 output of this shape, a tensor or a NumPy array; it sets kind and device.

    Returns:
        float32 of the shape: ``out``, or a torch tensor (without torch a NumPy array).

    Raises:
        ValueError: a number out of range, an unknown name, more than 2^35 elements, a device that
            torch cannot use.
        TypeError: a number of another type.

    Example:
        >>> u = noise((2, 3), "hardtanh", seed=1, step=0, tensor=0, noise="rademacher")
        >>> u.abs().sum().item()
        6.0

    Source: docs/algorithm.md, "Noise"; Yang & Aamodt, arXiv 2510.23926.
    """
    op = "noise"
    kind = _array.default_kind() if out is None else _array.common_kind(op, out=out)
    if out is not None:
        device = _array.device(out)
    elif device is None:
        device = "cpu"
    v = _check.shape_view(op, shape, kind, _array.place(op, device, kind))
    seed, step, _, _ = _check.scalars(op, v, seed, step)
    draw = _check.draw(op, v, None, surrogate, noise, 1, probe, tensor, offset, row_pitch)
    draw = draw.at(seed, step)
    _outputs.out(op, out, v.shape, "float32")
    case = (draw.on_host,)
    return _dispatch.call(op, kind, v.device, case, out=out, draw=draw, device=device, view=v)
