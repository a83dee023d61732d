"""Public operation: rotation, scale of each row and quantization of a weight in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Grid

FORMS = ("values", "codes")


@_dispatch.operation
def hadamard_quantize(
    w: Any, grid: Grid, form: str = "values", *, out: Any = None
) -> tuple[Any, Any]:
    """The ``quest`` quantizer: y = H w, a = m * sqrt(mean(y^2)) of each row, a * value(y * (1/a)).

    Equal to ``fake_quantize`` (form "codes": ``quantize``) of ``hadamard`` of the rows by their
    ``compute_scale`` of rule "quest", bit for bit for the scale that it returns; w is read once.

    Args:
        w: float32, any shape of at least one dimension, viewed as [N, K] = [shape[0], rest]
            (1-D: [1, n]); the K of a row are rotated in blocks of 128, a remainder in its powers
            of two.
        grid: the grid; m is the ``fixed`` rule's multiple for it.
        form: "values" or "codes".
        out: pair of outputs, of the result and of the scale.

    Returns:
        (result, scale): float32 values or uint8 codes of w's shape, of the rotated weight; float32
        scale [N, 1] >= 2^-100, of a float64 sum that is rounded once (another order of additions
        changes it only next to a rounding tie). A value that is not a number stays one.

    Raises:
        ValueError: an unknown form, a weight with no elements or (CPU) not finite (of that the
            scale tells, so ``out`` has been written then), an output that does not match.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> codes, scale = hadamard_quantize(torch.tensor([[3.0, 1.0]]), Grid("sign"), "codes")
        >>> codes.tolist(), round(scale.item(), 4)
        ([[1, 1]], 1.7844)

    Source: QuEST, arXiv 2502.05003, section 3.
    """
    op = "hadamard_quantize"
    first, second = (None, None) if out is None else _check.sequence(op, "out", out, 2, "results")
    key = _array.signature(w), grid, form
    plan = _PLANS.find(key, _checked, op, w, grid, form)
    v = plan.view
    if out is not None:
        _check.view(op, "w", w, **{"out[0]": first, "out[1]": second})
        _outputs.out(op, first, v.shape, plan.dtype, "out[0]")
        _outputs.out(op, second, (v.rows, 1), "float32", "out[1]")
        _outputs.apart(op, {"out[0]": first, "out[1]": second}, {"w": w})
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        result, scale = launch(w, first, second)
    else:
        given = None if out is None else (first, second)
        result, scale = _dispatch.call(
            op, v.kind, v.device, (), out=given, w=w, grid=grid, form=form, view=v
        )
    if v.device == "cpu":
        _check.finite(op, "w", scale)
    return result, scale


class _Plan(NamedTuple):
    view: _check.View
    dtype: str  # of the first result
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(op: str, w: Any, grid: Grid, form: str) -> _Plan:
    """Check all but the outputs."""
    v = _check.view(op, "w", w)
    _check.dtype(op, "w", w, "float32")
    _check.grid(op, grid)
    _check.choice(op, "form", form, FORMS)
    if v.rows * v.cols == 0:
        _check.fail(op, "w", f"has shape {v.shape}", "at least one element")
    dtype = "float32" if form == "values" else "uint8"
    return _Plan(v, dtype, _dispatch.Launches(op, v, (), v, grid, dtype))
