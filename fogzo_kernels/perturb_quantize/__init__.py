"""Public operation: all perturbed, quantized copies of a weight in one pass."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Flips, Grid, Packed

FORMS = ("values", "codes", "packed", "flips")
SIDES = {"both": 2, "plus": 1}


@_dispatch.operation
def perturb_quantize(
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    surrogate: str | None = None,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    probes: int = 1,
    gamma: Any,
    norm: Any,
    form: str = "values",
    sides: str = "both",
    first_probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    flip_count: Any = None,
    out: Any = None,
) -> Any:
    """Quantize w + e v_i and w - e v_i for every probe i, drawing each direction once.

    In bins, in float32, in this order:

        x = w * (1/a);  gw = grad * (a * e);  d_i = A_i * gw + B * (e u_i)
        A_i = 0 where norm < 2^-100, else (float32(e sqrt(1 - gamma)) * s_i) / norm
        B = float32(sqrt(gamma));  result: the grid's values of x + d_i and x - d_i

    e is the radius, u_i the noise of ``fogzo_kernels.noise``, s_i = +-1 one sign for each probe.

    Args:
        w: float32 latent weight, any shape of at least one dimension, viewed as [N, K].
        grad: float32 of w's shape, dL/dW^ through the surrogate. With gamma = 1 it has no
            influence: pass w and norm=0.
        scale: float32 a > 0 in the unit of w: (), [N, 1] or [N, G, 1].
        grid: the grid; None (form "values" only) leaves out the rounding and gives w +- a d, for
            parameters that stay float.
        surrogate: sets radius and noise; None is the grid's default.
        seed, step, tensor, noise, offset, row_pitch: coordinates of the noise, as in ``noise``.
        probes: number of probes n >= 1; first_probe: number of the first.
        gamma: 1 - beta in [0, 1], a float or a 0-dim float64 array.
        norm: N >= 0 of ``whitened_norm``, a float or a 0-dim float32 array.
        form: "values" (float32, unit of w), "codes" (uint8), "packed" (Packed) or "flips" (Flips).
        sides: "both" gives +, - of each probe in turn; "plus" gives + only.
        flip_count: int64 output [sides * n]: how many codes of each side differ from those of w.
        out: output of the result's form, shape and dtype, apart from all inputs in memory. A Flips
            with room for fewer flips than there are is an error; on a GPU, where nothing is read
            back, those beyond the room are left out and count tells.

    Returns:
        values or codes [2n, *w.shape] ("plus": [n, *w.shape]), a Packed of that shape, or a Flips.
        A NaN has code 0 and the lowest value.

    Raises:
        ValueError: shapes that do not match, numbers out of range, a surrogate that the grid does
            not have, (CPU) a scale that is not finite or under 2^-100.
        TypeError: another dtype or kind of array or number.

    Example:
        >>> import torch
        >>> w = torch.zeros(2, 8)
        >>> perturb_quantize(w, w, torch.tensor(1.0), Grid("mid-rise", 2), seed=0, step=0, tensor=0,
        ...                  gamma=1.0, norm=0.0, form="codes").shape
        torch.Size([2, 2, 8])

    Source: Yang & Aamodt, arXiv 2510.23926, eq. of FOGZO; docs/algorithm.md.
    """
    op = "perturb_quantize"
    names = noise, form, sides, surrogate
    numbers = probes, first_probe, tensor, offset, row_pitch
    plan = _plan_of(op, w, grad, scale, grid, names, numbers)
    v = plan.view
    scalars = _check.scalars(op, v, seed, step, gamma, norm)
    if out is not None:
        _check_out(op, w, grid, v, out, form, plan.side_count)
    if flip_count is not None:
        if grid is None:
            _check.fail(op, "flip_count", "is given with grid None", "None, as nothing is rounded")
        _check.view(op, "w", w, flip_count=flip_count)
        _outputs.out(op, flip_count, (plan.side_count,), "int64", "flip_count")
    if out is not None or flip_count is not None:
        written = {f"out{name}": array for name, array in _parts(out).items()}
        read = {"w": w, "grad": grad, "scale": scale}
        _outputs.apart(op, written | {"flip_count": flip_count}, read)
    case = form, len(v.shape)
    made, backend = plan.made, _dispatch.forced()
    if backend not in made:
        own = v, plan.draw, grid, form, plan.shape
        made[backend] = _dispatch.prepare(op, v.kind, v.device, case, *own)
    launch = made[backend]
    if launch is not None:
        arguments = w, grad, scale, out, flip_count, *scalars
        return _dispatch.run_prepared(op, launch, v.device, scale, *arguments)
    call = _call(plan, w, grad, scale, grid, form, scalars, out)
    return _dispatch.call(
        op,
        v.kind,
        v.device,
        case,
        (scale,),
        out=(out, flip_count),
        count_flips=flip_count is not None,
        **call,
    )[0]


@_dispatch.operation
def perturb_quantize_many(
    ws: Any,
    grads: Any,
    scales: Any,
    grids: Any,
    surrogates: Any = None,
    *,
    tensors: Any,
    seed: Any,
    step: Any,
    probes: int = 1,
    gamma: Any,
    norm: Any,
    form: str = "values",
    sides: str = "both",
    first_probe: int = 0,
    noise: str = "published",
    offsets: Any = 0,
    row_pitches: Any = None,
    flip_counts: Any = None,
    outs: Any = None,
) -> list[Any]:
    """``perturb_quantize`` of many tensors: equal to the loop bit for bit, one launch on a GPU.

    Args:
        ws, grads, scales: lists of L arrays.
        grids, surrogates, offsets, row_pitches: one for all, or a list of L.
        tensors: list of L tensor numbers.
        flip_counts: int64 output [L, sides * n]: ``flip_count`` of each; 0 where the grid is None.
        outs: None, or a list of L outputs.
        seed, step, probes, gamma, norm, form, sides, first_probe, noise: as in
            ``perturb_quantize``, shared by all.

    Returns:
        list of L results.

    Raises:
        ValueError, TypeError: as ``perturb_quantize``, and lists of unequal length.

    Example:
        >>> import torch
        >>> w, one = torch.zeros(2, 8), torch.tensor(1.0)
        >>> len(perturb_quantize_many([w, w], [w, w], [one, one], Grid("ternary"), tensors=[0, 1],
        ...                           seed=0, step=0, gamma=1.0, norm=0.0))
        2
    """
    op = "perturb_quantize_many"
    ws = _check.sequence(op, "ws", ws, None)
    n = len(ws)
    columns = zip(
        ws,
        _check.sequence(op, "grads", grads, n, "ws"),
        _check.sequence(op, "scales", scales, n, "ws"),
        _check.each(op, "grids", grids, n, "ws"),
        _check.each(op, "surrogates", surrogates, n, "ws"),
        _check.sequence(op, "tensors", tensors, n, "ws"),
        _check.each(op, "offsets", offsets, n, "ws"),
        _check.each(op, "row_pitches", row_pitches, n, "ws"),
        [None] * n if outs is None else _check.sequence(op, "outs", outs, n, "ws"),
        strict=True,
    )
    plans: list[_Plan] = []
    calls: list[dict[str, Any]] = []
    for w, grad, scale, grid, surrogate, *place, out in columns:
        names, numbers = (noise, form, sides, surrogate), (probes, first_probe, *place)
        plan = _plan_of(op, w, grad, scale, grid, names, numbers)
        if not plans:
            view = plan.view
            scalars = _check.scalars(op, view, seed, step, gamma, norm)
        elif (plan.view.kind, plan.place) != (view.kind, plans[0].place):
            _check.view(op, "w", w, first=ws[0])  # says what differs
        if out is not None:
            _check_out(op, w, grid, plan.view, out, form, plan.side_count)
        plans.append(plan)
        calls.append(_call(plan, w, grad, scale, grid, form, scalars, out))
    if flip_counts is not None:
        _check.view(op, "w", ws[0], flip_counts=flip_counts)
        _outputs.out(op, flip_counts, (n, plans[0].side_count), "int64", "flip_counts")
    if outs is not None or flip_counts is not None:
        _check_apart(op, calls, outs, flip_counts)
    cases = tuple(dict.fromkeys((form, len(plan.view.shape)) for plan in plans))
    scales = [call["scale"] for call in calls]
    into = [None] * n if outs is None else outs, flip_counts
    results: list[Any] = _dispatch.call(
        op,
        view.kind,
        view.device,
        cases,
        scales,
        out=into,
        calls=calls,
        made=[plan.made for plan in plans],
        count_flips=flip_counts is not None,
    )[0]
    return results


class _Plan(NamedTuple):
    view: _check.View
    place: Any  # device
    draw: _check.Draw  # at seed and step 0
    side_count: int  # all probes together
    shape: tuple[int, ...]  # of all sides' codes
    made: dict[str, Any]  # what backends keep for the calls of this plan


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _plan_of(
    op: str,
    w: Any,
    grad: Any,
    scale: Any,
    grid: Any,
    names: tuple[Any, ...],
    numbers: tuple[Any, ...],
) -> _Plan:
    arrays = _array.signature(w), _array.signature(grad), _array.signature(scale)
    key = *arrays, grid, names, _plans.exact(*numbers)
    return _PLANS.find(key, _checked, op, w, grad, scale, grid, *names, *numbers)


def _checked(
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
) -> _Plan:
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
    draw = _check.draw(op, v, grid, surrogate, noise, *numbers)
    count = SIDES[sides] * draw.probes
    shape = (count, *v.shape)
    _check.result_size(op, "probes", f"is {draw.probes}", shape)
    return _Plan(v, _array.device(w), draw, count, shape, {})


def _call(
    plan: _Plan,
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    form: str,
    scalars: tuple[Any, Any, Any, Any],
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


def _check_out(
    op: str, w: Any, grid: Grid | None, v: _check.View, out: Any, form: str, count: int
) -> None:
    """Refuse an output of another kind, device, shape or dtype."""
    kind = {"packed": Packed, "flips": Flips}.get(form)
    if kind is not None and not isinstance(out, kind):
        got = f"is a {type(out).__name__}"
        _check.fail(op, "out", got, f"a fogzo_kernels.{kind.__name__}", TypeError)
    parts = {f"out{name}": array for name, array in _parts(out).items()}
    _check.view(op, "w", w, **parts)
    shape = (count, *v.shape)
    if form == "packed" and grid is not None:
        _outputs.packed_out(op, out, shape, grid.storage_bits)
    elif form == "flips":
        _outputs.flips_out(op, out, v.shape, count)
    else:
        _outputs.out(op, out, shape, "float32" if form == "values" else "uint8")


def _check_apart(op: str, calls: list[dict[str, Any]], outs: Any, flip_counts: Any) -> None:
    """Refuse outputs of many tensors that share memory with each other or with an input."""
    read = [call[name] for call in calls for name in ("w", "grad", "scale")]
    if outs is None and _outputs.outside(flip_counts, read):
        return
    written = {"flip_counts": flip_counts}
    for i, out in enumerate(outs or ()):
        written |= {f"outs[{i}]{name}": array for name, array in _parts(out).items()}
    _outputs.apart(
        op,
        written,
        {
            f"{name}s[{i}]": call[name]
            for i, call in enumerate(calls)
            for name in ("w", "grad", "scale")
        },
    )


def _parts(out: Any) -> dict[str, Any]:
    """The arrays inside ``out``, by what their names add to its own."""
    if isinstance(out, Packed):
        return {".data": out.data}
    if isinstance(out, Flips):
        return {f".{name}": getattr(out, name) for name in ("base", "index", "code", "count")}
    return {"": out}
