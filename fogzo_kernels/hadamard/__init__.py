"""Public operation: the blockwise Hadamard rotation."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans


@_dispatch.operation
def hadamard(x: Any, block: int = 128, *, out: Any = None) -> Any:
    """Rotate blocks of the last dimension by the orthonormal Hadamard matrix of size ``block``.

    Stages of stride 1, 2, .. m / 2 replace each pair (p, q) by (p + q, p - q); then every element
    of a block of m is multiplied by float32(m^-1/2). A remainder of the last dimension is cut into
    its largest powers of two. The rotation is its own inverse up to rounding.

    Args:
        x: float32 [..., K], at least one dimension.
        block: a power of two in 1..2^20.
        out: float32 output of x's shape; may be x itself.

    Returns:
        float32 [..., K].

    Raises:
        ValueError: a block that is no power of two, an output that does not match.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> hadamard(torch.tensor([3.0, 1.0, 5.0])).tolist()
        [2.8284270763397217, 1.4142135381698608, 5.0]

    Source: QuEST, arXiv 2502.05003, section 3.
    """
    op = "hadamard"
    given = out if out is None else _array.signature(out)
    key = _array.signature(x), given, block, type(block)
    plan = _PLANS.find(key, _checked, op, x, block, out)
    v = plan.view
    if out is not None:
        _outputs.written(op, out)
        _outputs.no_overlap(op, out, same=True, x=x)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        return launch(out, x)
    return _dispatch.call(op, v.kind, v.device, (), out=out, x=x, block=plan.block)


class _Plan(NamedTuple):
    view: _check.View
    block: int
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(op: str, x: Any, block: int, out: Any) -> _Plan:
    """Check all but the output's memory."""
    v = _check.view(op, "x", x, out=out)
    _check.dtype(op, "x", x, "float32")
    block = _check.integer(op, "block", block, 1, 2**20 + 1, "a power of two in 1..2^20")
    if block & (block - 1):
        _check.fail(op, "block", f"is {block}", "a power of two in 1..2^20")
    _outputs.fits(op, out, v.shape, "float32")
    return _Plan(v, block, _dispatch.Launches(op, v, (), v, block))
