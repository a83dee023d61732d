"""Public operations: quantize-dequantize and its surrogate gradient."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans, _surrogate
from .._types import Grid

SMALLEST = 2.0**-149  # of float32


@_dispatch.operation
def fake_quantize(w: Any, scale: Any, grid: Grid, *, out: Any = None) -> Any:
    """The quantized weight: W^ = scale * value(w * (1/scale)).

    Args:
        w: float32, any shape of at least one dimension, viewed as [N, K] = [shape[0], rest]
            (1-D: [1, n]).
        scale: float32 > 0 in the unit of w: () for the tensor, [N, 1] per channel, [N, G, 1] per
            group of K / G elements.
        grid: the grid.
        out: float32 output of w's shape; may be w itself.

    Returns:
        float32 of w's shape, in the unit of w. NaN stays NaN.

    Raises:
        ValueError: shapes that do not match, (CPU) a scale that is not finite or under 2^-100.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> w, scale = torch.tensor([[-0.4, 2.0]]), torch.tensor(0.5)
        >>> fake_quantize(w, scale, Grid("mid-rise", 2)).tolist()
        [[-0.25, 0.75]]

    Source: the grids of Yang & Aamodt, arXiv 2510.23926 (mid-rise); LSQ, arXiv 1902.08153
    (mid-tread); BitNet b1.58, arXiv 2402.17764 (ternary); BinaryConnect, arXiv 1511.00363 (sign).
    """
    op = "fake_quantize"
    given = out if out is None else _array.signature(out)
    key = _array.signature(w), _array.signature(scale), given, grid
    plan = _FORWARD.find(key, _checked_forward, op, w, scale, grid, out)
    v = plan.view
    if out is not None:
        _outputs.written(op, out)
        _outputs.no_overlap(op, out, same=True, w=w)
        _outputs.no_overlap(op, out, scale=scale)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        return _dispatch.run_prepared(op, launch, v.device, (scale,), out, w, scale)
    return _dispatch.call(
        op, v.kind, v.device, (), (scale,), out=out, w=w, scale=scale, grid=grid, view=v
    )


@_dispatch.operation
def fake_quantize_backward(
    grad: Any,
    w: Any,
    scale: Any,
    grid: Grid,
    surrogate: str | None = None,
    *,
    needs_scale_grad: bool = True,
    limit: float | None = None,
    out: Any = None,
) -> tuple[Any, Any]:
    """Surrogate gradient of ``fake_quantize`` with respect to w and to the scale.

    With x = w * (1/scale) and h the surrogate's smoothing (docs/algorithm.md):

        grad_w = grad * h'(x)
        grad_scale = (1 / sqrt(numel Q_P)) * sum over the scale's elements of grad * t,
            t = value(x) - x for v_min <= x <= v_max, else value(x)

    Args:
        grad: float32 of w's shape, gradient with respect to the quantized weight.
        w: float32, any shape of at least one dimension, viewed as [N, K] = [shape[0], rest].
        scale: float32 > 0: (), [N, 1] or [N, G, 1].
        grid: the grid.
        surrogate: identity, clipped, hardtanh, tanh, approx_sign or trust; None: hardtanh on the
            sign grid, else clipped.
        needs_scale_grad: False gives None in place of grad_scale.
        limit: for clipped: -limit <= x <= limit in place of v_min <= x <= v_max, both in the mask
            and in t (a stretched range); > 0, in bins.
        out: float32 output for grad_w; may be grad itself.

    Returns:
        (grad_w float32 of w's shape, grad_scale float32 of the scale's shape or None).

    Raises:
        ValueError: shapes that do not match, a surrogate that the grid does not have, (CPU) a scale
            that is not finite or under 2^-100.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> w, one = torch.tensor([[0.3, 9.0]]), torch.ones(1, 2)
        >>> fake_quantize_backward(one, w, torch.tensor(0.5), Grid("mid-rise", 2))[0].tolist()
        [[1.0, 0.0]]

    Source: Bengio et al., arXiv 1308.3432 (straight-through); LSQ, arXiv 1902.08153, eq. 3;
    ParetoQ, arXiv 2502.02631 (limit).
    """
    op = "fake_quantize_backward"
    key = (
        _array.signatures(grad, w, scale), out if out is None else _array.signature(out),
        grid, surrogate, limit, type(limit), needs_scale_grad,
    )  # fmt: skip
    more = surrogate, limit, needs_scale_grad
    plan = _BACKWARD.find(key, _checked_backward, op, grad, w, scale, grid, out, *more)
    v = plan.view
    if out is not None:
        _outputs.written(op, out)
        _outputs.no_overlap(op, out, same=True, grad=grad)
        _outputs.no_overlap(op, out, w=w, scale=scale)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        result: tuple[Any, Any] = _dispatch.run_prepared(
            op, launch, v.device, (scale,), grad, w, scale, out
        )
        return result
    result = _dispatch.call(
        op,
        v.kind,
        v.device,
        (plan.surrogate, needs_scale_grad, *plan.limited.values()),
        (scale,),
        out=None if out is None else (out, None),
        grad=grad,
        w=w,
        scale=scale,
        grid=grid,
        surrogate=plan.surrogate,
        needs_scale_grad=needs_scale_grad,
        view=v,
        **plan.limited,
    )
    return result


class _Forward(NamedTuple):
    view: _check.View
    launches: _dispatch.Launches


class _Backward(NamedTuple):
    view: _check.View
    surrogate: str
    limited: dict[str, float]  # {"limit": float} where there is one
    launches: _dispatch.Launches


_FORWARD: _plans.Plans[_Forward] = _plans.Plans()
_BACKWARD: _plans.Plans[_Backward] = _plans.Plans()


def _checked_forward(op: str, w: Any, scale: Any, grid: Grid, out: Any) -> _Forward:
    """Check all but the output's memory."""
    v = _check.weight(op, w, scale, out=out)
    _check.grid(op, grid)
    _outputs.fits(op, out, v.shape, "float32")
    return _Forward(v, _dispatch.Launches(op, v, (), v, grid))


def _checked_backward(
    op: str,
    grad: Any,
    w: Any,
    scale: Any,
    grid: Grid,
    out: Any,
    surrogate: str | None,
    limit: Any,
    needs_scale_grad: bool,
) -> _Backward:
    """Check all but the output's memory."""
    v = _check.weight(op, w, scale, grad=grad, out=out)
    _check.dtype(op, "grad", grad, "float32")
    _check.shape(op, "grad", grad, v.shape, ", w's")
    _check.grid(op, grid)
    name = _surrogate.chosen(surrogate, grid)
    _surrogate.check(op, name, grid=grid)
    limited = {}
    if limit is not None:
        limit = _check.number(op, "limit", limit, 0.0, float("inf"), "a float32 number over 0")
        if limit < SMALLEST or name != "clipped":
            got = f"is {limit!r} with surrogate {name!r}"
            _check.fail(op, "limit", got, "a float32 number over 0, and surrogate 'clipped'")
        limited["limit"] = limit
    _outputs.fits(op, out, v.shape, "float32")
    case = name, needs_scale_grad, *limited.values()
    shape = tuple(scale.shape) if needs_scale_grad else None
    return _Backward(v, name, limited, _dispatch.Launches(op, v, case, v, grid, name, limit, shape))
