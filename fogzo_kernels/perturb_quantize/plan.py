"""Every check of perturb_quantize and of its call for many tensors, and what they find."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans, _surrogate
from .._types import Flips, Grid, Packed, arrays_of

FORMS = ("values", "codes", "packed", "flips")
SIDES = {"both": 2, "plus": 1}


class Plan(NamedTuple):
    view: _check.View
    draw: _check.Draw  # at seed and step 0
    side_count: int  # all probes together
    shape: tuple[int, ...]  # of all sides' codes
    launches: _dispatch.Launches


class ManyPlan(NamedTuple):
    parts: list[Plan]
    grids: list[Grid | None]
    cases: tuple[Any, ...]
    launches: _dispatch.Launches


ONE: _plans.Plans[Plan] = _plans.Plans()
MANY: _plans.Plans[ManyPlan] = _plans.Plans()


def checked(
    op: str,
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    noise: str,
    form: str,
    sides: str,
    surrogate: str | None,
    *numbers: Any,
) -> Plan:
    """Check one tensor's own arguments and what it shares with others, but for outputs."""
    _check.choice(op, "form", form, FORMS)
    _check.choice(op, "sides", sides, tuple(SIDES))
    v = _check.weight(op, w, scale, grad=grad)
    if grid is not None:
        _check.grid(op, grid)
    elif form != "values":
        _check.fail(op, "form", f"is {form!r} with grid None", "'values'")
    _check.dtype(op, "grad", grad, "float32")
    _check.shape(op, "grad", grad, v.shape, ", w's")
    draw = _check.draw(op, v, grid, _surrogate.chosen(surrogate, grid), noise, *numbers)
    count = SIDES[sides] * draw.probes
    shape = (count, *v.shape)
    _check.result_size(op, "probes", f"is {draw.probes}", shape)
    launches = _dispatch.Launches(op, v, (form, len(v.shape)), v, draw, grid, form, shape)
    return Plan(v, draw, count, shape, launches)


def checked_many(
    op: str,
    arrays: tuple[list[Any], list[Any], list[Any]],
    each: tuple[Any, Any, Any, Any, Any],
    names: tuple[str, str, str],
    shared: tuple[int, int],
    flip_counts: Any,
) -> ManyPlan:
    """Check the arguments of many tensors, but for outputs (of flip_counts, but for its memory).

    each: grids, surrogates, tensors, offsets, row_pitches. names: noise, form, sides. shared:
    probes, first_probe.
    """
    ws, n = arrays[0], len(arrays[0])
    grids = _check.each(op, "grids", each[0], n, "ws")
    columns = (
        _check.each(op, "surrogates", each[1], n, "ws"),
        _check.sequence(op, "tensors", each[2], n, "ws"),
        _check.each(op, "offsets", each[3], n, "ws"),
        _check.each(op, "row_pitches", each[4], n, "ws"),
    )
    parts = []
    for w, grad, scale, grid, surrogate, *place in zip(*arrays, grids, *columns, strict=True):
        parts.append(checked(op, w, grad, scale, grid, *names, surrogate, *shared, *place))
        _check.view(op, "w", w, first=ws[0])
    if flip_counts is not None:
        _check.view(op, "w", ws[0], flip_counts=flip_counts)
        _outputs.fits(op, flip_counts, (n, parts[0].side_count), "int64", "flip_counts")
    cases = tuple(dict.fromkeys((names[1], len(part.view.shape)) for part in parts))
    settled = [(part.view, part.draw, part.shape) for part in parts]
    own = settled, grids, names[1], parts[0].side_count
    return ManyPlan(parts, grids, cases, _dispatch.Launches(op, parts[0].view, cases, *own))


def call_of(
    form: str,
    scalars: tuple[Any, Any, Any, Any],
    plan: Plan,
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    out: Any,
) -> dict[str, Any]:
    """The call that a backend takes, without the outputs."""
    seed, step, gamma, norm = scalars
    return {
        "w": w,
        "grad": grad,
        "scale": scale,
        "grid": grid,
        "draw": plan.draw.at(seed, step),
        "gamma": gamma,
        "norm": norm,
        "form": form,
        "sides": plan.side_count // plan.draw.probes,
        "capacity": out.index.shape[1] if isinstance(out, Flips) else None,
        "view": plan.view,
        "shape": plan.shape,
    }


def check_out(
    op: str, w: Any, grid: Grid | None, v: _check.View, out: Any, form: str, count: int
) -> None:
    """Refuse an output of another kind, device, shape or dtype."""
    kind = {"packed": Packed, "flips": Flips}.get(form)
    if kind is not None and not isinstance(out, kind):
        got = f"is a {type(out).__name__}"
        _check.fail(op, "out", got, f"a fogzo_kernels.{kind.__name__}", TypeError)
    parts = {"out": out} if kind is None else arrays_of("out", out)
    _array.common_kind(op, **parts)
    _check.view(op, "w", w, **parts)
    shape = (count, *v.shape)
    if form == "packed" and grid is not None:
        _outputs.packed_out(op, out, shape, grid.storage_bits)
    elif form == "flips":
        _outputs.flips_out(op, out, v.shape, count)
    else:
        _outputs.out(op, out, shape, "float32" if form == "values" else "uint8")


def check_apart(
    op: str, arrays: tuple[list[Any], list[Any], list[Any]], outs: Any, flip_counts: Any
) -> None:
    """Refuse outputs of many tensors that share memory with each other or with an input."""
    written = {} if flip_counts is None else {"flip_counts": flip_counts}
    for i, out in enumerate(outs or ()):
        written |= arrays_of(f"outs[{i}]", out)
    given = [array for array in written.values() if array is not None]
    if _outputs.are_apart(given, [array for list_ in arrays for array in list_]):
        return
    read = zip(("ws", "grads", "scales"), arrays, strict=True)
    named = {f"{name}[{i}]": array for name, list_ in read for i, array in enumerate(list_)}
    _outputs.apart(op, written, named)
