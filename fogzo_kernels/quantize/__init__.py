"""Public operations: weights to codes, codes to values."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Grid, Packed


@_dispatch.operation
def quantize(w: Any, scale: Any, grid: Grid, *, out: Any = None) -> Any:
    """Codes of a weight: the index, 0 .. levels - 1, of the grid value nearest x = w * (1/scale).

    - ``mid-tread``, ``ternary``: code = clamp(rne(x), v_min, v_max) - v_min;
    - ``mid-rise``: code = clamp(rne(x - 1/2), -2^(b-1), 2^(b-1) - 1) + 2^(b-1);
    - ``sign``: code = 1 where x >= 0, else 0.

    Args:
        w: float32, any shape of at least one dimension, viewed as [N, K] = [shape[0], rest]
            (1-D: [1, n]).
        scale: float32 > 0 in the unit of w: () for the tensor, [N, 1] per channel, [N, G, 1] per
            group of K / G elements.
        grid: the grid.
        out: uint8 output of w's shape, apart from w in memory.

    Returns:
        uint8 of w's shape, without a unit. NaN has code 0.

    Raises:
        ValueError: shapes that do not match, (CPU) a scale that is not finite or under 2^-100.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> quantize(torch.tensor([[-0.4, 0.1]]), torch.tensor(0.5), Grid("mid-rise", 2)).tolist()
        [[1, 2]]

    Source: the grids of Yang & Aamodt, arXiv 2510.23926 (mid-rise); LSQ, arXiv 1902.08153
    (mid-tread); BitNet b1.58, arXiv 2402.17764 (ternary); BinaryConnect, arXiv 1511.00363 (sign).
    """
    op = "quantize"
    given = out if out is None else _array.signature(out)
    key = _array.signature(w), _array.signature(scale), given, grid
    plan = _PLANS.find(key, _checked, op, w, scale, grid, out)
    v = plan.view
    if out is not None:
        _outputs.written(op, out)
        _outputs.no_overlap(op, out, w=w, scale=scale)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        return _dispatch.run_prepared(op, launch, v.device, (scale,), out, w, scale)
    return _dispatch.call(
        op, v.kind, v.device, (), (scale,), out=out, w=w, scale=scale, grid=grid, view=v
    )


@_dispatch.operation
def dequantize(codes: Any, scale: Any, grid: Grid, *, out: Any = None) -> Any:
    """Values of codes in the unit of the scale: scale * value(code).

    Bit for bit what ``fake_quantize`` gives for the weight behind the codes.

    Args:
        codes: uint8 of any shape of at least one dimension, or a Packed of it, viewed as
            [N, K] = [shape[0], rest]. A code >= levels is not checked and has no meaning.
        scale: float32 > 0: (), [N, 1] or [N, G, 1].
        grid: the grid the codes belong to.
        out: float32 output of the codes' shape.

    Returns:
        float32 of the codes' shape, in the unit of the scale.

    Raises:
        ValueError: shapes that do not match, (CPU) a scale that is not finite or under 2^-100, a
            Packed of another width than the grid's.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> codes = torch.tensor([[0, 3]], dtype=torch.uint8)
        >>> dequantize(codes, torch.tensor(0.5), Grid("mid-rise", 2)).tolist()
        [[-0.75, 0.75]]

    Source: the grids of Yang & Aamodt, arXiv 2510.23926 (mid-rise); LSQ, arXiv 1902.08153
    (mid-tread); BitNet b1.58, arXiv 2402.17764 (ternary); BinaryConnect, arXiv 1511.00363 (sign).
    """
    op = "dequantize"
    _check.grid(op, grid)
    if isinstance(codes, Packed):
        _check.packed(op, codes, grid, "codes")
        v = _check.view(op, "codes.data", codes.data, scale=scale, out=out)
        v = _check.shape_view(op, codes.shape, v.kind, v.device)
        data = codes.data
    else:
        v = _check.view(op, "codes", codes, scale=scale, out=out)
        _check.dtype(op, "codes", codes, "uint8")
        data = codes
    v = _check.with_scale(op, v, scale, "codes")
    _outputs.out(op, out, v.shape, "float32")
    _outputs.no_overlap(op, out, codes=data, scale=scale)
    return _dispatch.call(
        op, v.kind, v.device, (), (scale,), out=out, codes=codes, scale=scale, grid=grid, view=v
    )


class _Plan(NamedTuple):
    view: _check.View
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(op: str, w: Any, scale: Any, grid: Grid, out: Any) -> _Plan:
    """Check all of quantize but the output's memory."""
    v = _check.weight(op, w, scale, out=out)
    _check.grid(op, grid)
    _outputs.fits(op, out, v.shape, "uint8")
    return _Plan(v, _dispatch.Launches(op, v, (), v, grid))
