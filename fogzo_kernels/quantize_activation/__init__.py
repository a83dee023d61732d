"""Public operation: integer activations with one scale a row."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans


@_dispatch.operation
def quantize_activation(x: Any, bits: int = 8, *, out: Any = None) -> tuple[Any, Any]:
    """Each row of x as small integers times a scale: what ``probe_matmul`` takes as int8.

    With Q = 2^(bits - 1) - 1, in float32 with correctly rounded divisions:

        x_scale = max abs x / Q over the row;  code = clamp(rne(x / x_scale), -Q, Q)
        1 bit: x_scale = mean abs x, summed in float64;  code = +1 where x >= 0, else -1

    A code is 0 where x is NaN, whose row has x_scale NaN; with 2 bits and more wherever x / x_scale
    is NaN, so also in a row of zeros, whose x_scale is 0.

    Args:
        x: float32 or bfloat16 [..., K], at least one dimension; a row is its last one.
        bits: 1..8.
        out: (codes, x_scale) to write, apart from x in memory.

    Returns:
        (codes int8 [..., K], x_scale float32 [...], in the unit of x).

    Raises:
        ValueError: bits out of range, outputs that do not match.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> codes, x_scale = quantize_activation(torch.tensor([[127.0, -3.6]]))
        >>> codes.tolist(), x_scale.tolist()
        ([[127, -4]], [1.0])

    Source: per-token quantization, docs/algorithm.md.
    """
    op = "quantize_activation"
    codes, x_scale = (None, None) if out is None else _check.sequence(op, "out", out, 2, "results")
    plan = _PLANS.find((_array.signature(x), bits, type(bits)), _checked, op, x, bits)
    v = plan.view
    if out is not None:
        _check.view(op, "x", x, **{"out[0]": codes, "out[1]": x_scale})
        _outputs.out(op, codes, v.shape, "int8", "out[0]")
        _outputs.out(op, x_scale, v.shape[:-1], "float32", "out[1]")
        _outputs.no_overlap(op, codes, "out[0]", x=x)
        _outputs.no_overlap(op, x_scale, "out[1]", x=x, codes=codes)
    launch = plan.launches[_dispatch.forced()]
    result: tuple[Any, Any]
    if launch is not None:
        result = launch(x, codes, x_scale)
        return result
    given = None if out is None else (codes, x_scale)
    result = _dispatch.call(op, v.kind, v.device, plan.case, out=given, x=x, bits=plan.bits)
    return result


class _Plan(NamedTuple):
    view: _check.View
    case: tuple[str]  # dtype of x
    bits: int
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(op: str, x: Any, bits: int) -> _Plan:
    """Check all but the outputs."""
    v = _check.view(op, "x", x)
    _check.dtype(op, "x", x, "float32", "bfloat16")
    bits = _check.integer(op, "bits", bits, 1, 9, "an int in 1..8")
    case = (_array.dtype_name(x),)
    return _Plan(v, case, bits, _dispatch.Launches(op, v, case, v, bits))
