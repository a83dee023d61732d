"""Public operation: scales of a weight by rule."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Grid

RULES = ("fixed", "absmean", "absmax", "lsq", "quest", "stretched")
GRANULARITIES = ("tensor", "channel", "group")


@_dispatch.operation
def compute_scale(
    w: Any,
    grid: Grid,
    rule: str = "fixed",
    granularity: str = "channel",
    group_size: int | None = None,
    *,
    out: Any = None,
) -> Any:
    """The scale a that a rule gives a weight, per tensor, output channel or group.

    Over the elements of one scale (Q_P = max(1, 2^(b-1) - 1)):

    - ``fixed``: m * sqrt(mean(w^2)), m the Gaussian-MSE-optimal multiple of the grid;
    - ``absmean`` (sign, ternary): mean abs w;
    - ``absmax``: max abs w / v_max, then one nextafter upward, so that the maximum is in range;
    - ``lsq``: 2 mean abs w / sqrt(Q_P), on sign mean abs w (the initial value of a learned scale);
    - ``quest``: ``fixed`` per row of a weight that is already rotated by ``hadamard``;
    - ``stretched``: max abs w / (v_max + 1/2) (the initial value of a learned range, max abs w).

    Sums are taken in float64 and rounded once. absmean and absmax (which are computed anew each
    step) are at least 1e-8, the others 2^-100.

    Args:
        w: float32, any shape of at least one dimension, viewed as [shape[0], rest] (1-D: [1, n]).
        grid: the grid that will be used with the scale.
        rule: one of the names above.
        granularity: "tensor", "channel" (a row of the view) or "group".
        group_size: elements of a row that share a scale, for "group"; divides the row.
        out: float32 output of the result's shape, apart from w in memory.

    Returns:
        float32, in the unit of w: shape () for tensor, [N, 1] for channel, [N, K / group_size, 1]
        for group.

    Raises:
        ValueError: an unknown rule or granularity, a rule that the grid does not have, a group
            size that does not divide the row, a weight with no elements or (CPU) not finite: of
            that the scale tells, so ``out`` has been written then.

    Example:
        >>> import torch
        >>> compute_scale(torch.tensor([[1.0, -3.0]]), Grid("ternary"), "absmean").item()
        2.0

    Source: Yang & Aamodt, arXiv 2510.23926 (fixed); BitNet b1.58, arXiv 2402.17764 (absmean); LSQ,
    arXiv 1902.08153; QuEST, arXiv 2502.05003; ParetoQ, arXiv 2502.02631 (stretched).
    """
    op = "compute_scale"
    key = (
        _array.signature(w), out if out is None else _array.signature(out), grid, rule,
        granularity, group_size, type(group_size),
    )  # fmt: skip
    plan = _PLANS.find(key, _checked, op, w, grid, rule, granularity, group_size, out)
    v = plan.view
    if out is not None:
        _outputs.written(op, out)
        _outputs.no_overlap(op, out, w=w)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        result = launch(out, w)
    else:
        result = _dispatch.call(
            op, v.kind, v.device, (), out=out, w=w, grid=grid, rule=rule, shape=plan.shape
        )
    if v.device == "cpu":
        _check.finite(op, "w", result)
    return result


class _Plan(NamedTuple):
    view: _check.View
    shape: tuple[int, ...]  # of the scale
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(
    op: str, w: Any, grid: Grid, rule: str, granularity: str, group_size: int | None, out: Any
) -> _Plan:
    """Check all but the output's memory."""
    v = _check.view(op, "w", w, out=out)
    _check.dtype(op, "w", w, "float32")
    _check.grid(op, grid)
    _check.choice(op, "rule", rule, RULES)
    _check.choice(op, "granularity", granularity, GRANULARITIES)
    if rule == "absmean" and grid.kind not in ("sign", "ternary"):
        _check.fail(op, "rule", "is 'absmean'", f"another rule for grid {grid.kind!r}")
    if rule == "quest" and granularity != "channel":
        _check.fail(op, "granularity", f"is {granularity!r}", "'channel' for rule 'quest'")
    if (granularity == "group") != (group_size is not None):
        wanted = "an int for granularity 'group', else None"
        _check.fail(op, "group_size", f"is {group_size!r} with granularity {granularity!r}", wanted)
    if v.rows * v.cols == 0:
        _check.fail(op, "w", f"has shape {v.shape}", "at least one element")
    shape: tuple[int, ...] = () if granularity == "tensor" else (v.rows, 1)
    if group_size is not None:
        size = _check.integer(op, "group_size", group_size, 1, v.cols + 1, f"an int in 1..{v.cols}")
        if v.cols % size:
            _check.fail(op, "group_size", f"is {size}", f"a divisor of {v.cols}")
        shape = (v.rows, v.cols // size, 1)
    _outputs.fits(op, out, shape, "float32")
    return _Plan(v, shape, _dispatch.Launches(op, v, (), v, grid, rule, shape))
