"""Public operation: one low-bit matmul for all probes."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Flips, Grid, Packed, arrays_of


@_dispatch.operation
def probe_matmul(
    x: Any,
    codes: Any,
    scale: Any,
    grid: Grid,
    bias: Any = None,
    *,
    x_scale: Any = None,
    out: Any = None,
) -> Any:
    """y[p] = x[p] @ (scale * value(codes[p])).T + bias for all P probe sides.

    The exact result rounded once to the output's dtype is the reference; kernels accumulate in
    float32 (int32 for int8 activations) and may differ by their accumulation error. Of Flips they
    may add x times the change of a weight, which is NaN where x is not finite.

    Args:
        x: float32, bfloat16, float16, int8 or float8_e4m3fn activations [M, K] (shared by all
            sides) or [P, M, K].
        codes: uint8 [N, K] or [P, N, K], a Packed of that shape, or a Flips of a [N, K] weight;
            codes beyond the grid's levels multiply by values of no meaning, which backends choose.
            The element numbers of Flips ascend; on a GPU, where they are not read, others give
            sums of no meaning.
        scale: float32 > 0 in the unit of w: (), [N, 1] or [N, G, 1] with G dividing K.
        grid: the grid the codes belong to.
        bias: None or [N], float32 (or x's dtype).
        x_scale: float32 scale of each row, [M] or [P, M] like x; with int8 and float8 x only.
        out: output of the result's shape and dtype, apart from all inputs in memory.

    Returns:
        [P, M, N] in x's dtype, float32 where x has a scale; in the unit of x (or of x_scale) times
        that of the scale. P is 1 where nothing has probe sides.

    Raises:
        ValueError: shapes that do not match, (CPU) a scale that is not finite or under 2^-100, or
            element numbers of Flips that are out of range or order.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> codes = torch.tensor([[0, 3]], dtype=torch.uint8)
        >>> x = torch.tensor([[1.0, 3.0]])
        >>> probe_matmul(x, codes, torch.tensor(2.0), Grid("mid-rise", 2)).tolist()
        [[[6.0]]]

    Source: the probes' forward passes of Yang & Aamodt, arXiv 2510.23926; int8 activations with a
    scale a row as LLM.int8(), arXiv 2208.07339.
    """
    op = "probe_matmul"
    plan = _plan(op, x, codes, scale, grid, bias, x_scale, out)
    if out is not None:
        _outputs.written(op, out)
        parts = arrays_of("codes", codes)
        _outputs.no_overlap(op, out, x=x, scale=scale, bias=bias, x_scale=x_scale, **parts)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        given = x, codes, scale, bias, x_scale, out
        try:
            return _dispatch.run_prepared(op, launch, plan.view.device, (scale,), *given)
        except ValueError:
            _check_values(op, codes, plan.view)  # the launcher does not say which value
            raise
    _check_values(op, codes, plan.view)
    return _dispatch.call(
        op,
        plan.view.kind,
        plan.view.device,
        plan.case,
        (scale,),
        out=out,
        x=x,
        codes=codes,
        scale=scale,
        grid=grid,
        bias=bias,
        x_scale=x_scale,
        view=plan.view,
    )


class _Plan(NamedTuple):
    view: _check.View  # of the weight
    case: tuple[str, str, int]  # dtype of x, kind of codes, their bits
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _plan(
    op: str, x: Any, codes: Any, scale: Any, grid: Any, bias: Any, x_scale: Any, out: Any
) -> _Plan:
    """The checked call; checks that read no memory are made once for arrays of equal signatures."""
    packed = type(codes) is Packed
    if packed and not (type(codes.bits) is int and isinstance(codes.shape, tuple)):
        _check_codes(op, codes, grid)
    if type(grid) is not Grid:
        return _checked(op, x, codes, scale, grid, bias, x_scale, out)
    data, own = codes, None
    if packed:
        data, own = codes.data, (codes.bits, codes.shape)
    elif isinstance(codes, Flips):
        data, own = codes.base, _flips_key(codes)
    key = (
        _array.signatures(x, data, scale),
        own,
        grid.kind,
        grid.bits,
        bias if bias is None else _array.signature(bias),
        x_scale if x_scale is None else _array.signature(x_scale),
        out if out is None else _array.signature(out),
    )
    return _PLANS.find(key, _checked, op, x, codes, scale, grid, bias, x_scale, out)


def _flips_key(flips: Flips) -> tuple[Any, ...]:
    """All that checks read of Flips beside the base; their room is another one in every step."""
    parts = flips.index, flips.code, flips.count
    room, other = (getattr(part, "shape", ()) for part in parts[:2])
    index, code, count = (_array.signature(part) or () for part in parts)
    rest = *index[:1], *index[2:], *code[:1], *code[2:]
    return (room == other, len(room), room[:1], *rest, *count)


def _checked(
    op: str, x: Any, codes: Any, scale: Any, grid: Grid, bias: Any, x_scale: Any, out: Any
) -> _Plan:
    _check.grid(op, grid)
    _check_codes(op, codes, grid)
    parts = arrays_of("codes", codes)
    first = next(iter(parts.values()))
    v = _check.view(op, "x", x, scale=scale, bias=bias, x_scale=x_scale, out=out, **parts)
    _check.dtype(op, "x", x, "float32", "bfloat16", "float16", "int8", "float8_e4m3fn")
    shape = tuple(codes.shape if isinstance(codes, Packed) else first.shape)
    if len(v.shape) not in (2, 3):
        _check.fail(op, "x", f"has shape {v.shape}", "(M, K) or (P, M, K)")
    if len(shape) not in (2, 3):
        _check.fail(op, "codes", f"has shape {shape}", "(N, K) or (P, N, K)")
    n, k = shape[-2:]
    if v.shape[-1] != k:
        _check.fail(op, "x", f"has shape {v.shape}", f"(..., {k}) to match codes {shape}")
    sides = {3: shape[0]}.get(len(shape))
    if isinstance(codes, Flips):
        sides = codes.count.shape[0]
    if len(v.shape) == 3 and sides is not None and v.shape[0] != sides:
        _check.fail(op, "x", f"has shape {v.shape}", f"({sides}, M, {k}) to match codes")
    p = sides if sides is not None else v.shape[0] if len(v.shape) == 3 else 1
    _check.result_size(op, "x", f"has shape {v.shape}", (p, v.shape[-2], n))
    weight = _check.shape_view(op, (n, k), v.kind, v.device)
    weight = _check.with_scale(op, weight, scale, "codes")
    x_dtype = _array.dtype_name(x)
    scaled = x_dtype in ("int8", "float8_e4m3fn")
    if scaled != (x_scale is not None):
        got = "is given" if x_scale is not None else "is None"
        _check.fail(op, "x_scale", f"{got} with x of another dtype" if not scaled else got,
                    "a float32 array with int8 or float8 x, else None")  # fmt: skip
    if x_scale is not None:
        _check.dtype(op, "x_scale", x_scale, "float32")
        _check.shape(op, "x_scale", x_scale, v.shape[:-1], ", a scale for each row of x")
    if bias is not None:
        _check.dtype(op, "bias", bias, "float32", "bfloat16", "float16")
        _check.shape(op, "bias", bias, (n,), ", one for each output")
    _outputs.out(op, out, (p, v.shape[-2], n), "float32" if scaled else x_dtype)
    case = (x_dtype, type(codes).__name__, grid.code_bits)
    x_sides = v.shape[0] if len(v.shape) == 3 else 1
    stored = None if isinstance(codes, Flips) else codes.bits if isinstance(codes, Packed) else 8
    code_sides = shape[0] if len(shape) == 3 else 1
    own = weight, grid, x_dtype, (p, v.shape[-2], n), x_sides, code_sides, stored
    return _Plan(weight, case, _dispatch.Launches(op, weight, case, *own))


def _check_codes(op: str, codes: Any, grid: Grid) -> None:
    if isinstance(codes, Packed):
        _check.packed(op, codes, grid, "codes")
    elif isinstance(codes, Flips):
        _check.flips(op, codes)
    else:
        _check.dtype_array(op, "codes", codes, "uint8")


def _check_values(op: str, codes: Any, view: _check.View) -> None:
    if isinstance(codes, Flips) and view.device == "cpu":
        _check.flip_values(op, codes)
