"""Public operation: the estimated gradient from the seed and the loss differences."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans


@_dispatch.operation
def assemble_gradient(
    grad: Any,
    scale: Any,
    differences: Any,
    surrogate: str,
    *,
    seed: Any,
    step: Any,
    tensor: int,
    gamma: Any,
    norm: Any,
    first_probe: int = 0,
    noise: str = "published",
    offset: int = 0,
    row_pitch: int | None = None,
    out: Any = None,
) -> Any:
    """G = (D_0 d_0 + D_1 d_1 + ...) * (1 / (n ((e e) a))), each d_i made again from the seed.

    d_i is the perturbation of ``perturb_quantize`` in bins; in exact terms
    G = (1/n) sum_i D_i v_i / (e a). Float32, left to right, no fused multiply-add.

    Args:
        grad: float32 gradient that the probes were made with, viewed as [N, K] = [shape[0], rest].
        scale: float32 a > 0: (), [N, 1] or [N, G, 1].
        differences: [n], D_i = (L+ - L-) / 2; float32, or float64 that is rounded once.
        surrogate: as in ``perturb_quantize``, named.
        seed, step, tensor, gamma, norm, first_probe, noise, offset, row_pitch: as there.
        out: float32 output of grad's shape; may be grad itself.

    Returns:
        float32 of grad's shape, in units of the loss / the unit of w. Where grad is infinite or
        NaN, G is NaN.

    Raises:
        ValueError: shapes that do not match, numbers out of range, (CPU) a scale that is not
            finite or under 2^-100.
        TypeError: another dtype or kind of array or number.

    Example:
        >>> import torch
        >>> g, d = torch.ones(1, 4), torch.tensor([0.5])
        >>> assemble_gradient(g, torch.tensor(1.0), d, "hardtanh", seed=0, step=0, tensor=0,
        ...                   gamma=1.0, norm=2.0, noise="rademacher").abs().tolist()
        [[0.5, 0.5, 0.5, 0.5]]

    Source: Yang & Aamodt, arXiv 2510.23926; docs/algorithm.md.
    """
    op = "assemble_gradient"
    key = (
        _array.signatures(grad, scale, differences), noise, surrogate,
        first_probe, tensor, offset, row_pitch,
        type(first_probe), type(tensor), type(offset), type(row_pitch),
    )  # fmt: skip
    plan = _ONE.known(key)
    if plan is None:
        numbers = first_probe, tensor, offset, row_pitch
        plan = _ONE.make(key, _checked, op, grad, scale, differences, noise, surrogate, *numbers)
    v = plan.view
    scalars = _check.scalars(op, v, seed, step, gamma, norm)
    if out is not None:
        _check_out(op, grad, scale, differences, v, out)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        arguments = grad, scale, differences, out, *scalars
        return _dispatch.run_prepared(op, launch, v.device, (scale,), *arguments)
    call = _call(plan, grad, scale, differences, scalars)
    return _dispatch.call(op, v.kind, v.device, (), (scale,), out=out, **call)


@_dispatch.operation
def assemble_gradient_many(
    grads: Any,
    scales: Any,
    differences: Any,
    surrogates: Any,
    *,
    tensors: Any,
    seed: Any,
    step: Any,
    gamma: Any,
    norm: Any,
    first_probe: int = 0,
    noise: str = "published",
    offsets: Any = 0,
    row_pitches: Any = None,
    outs: Any = None,
) -> list[Any]:
    """``assemble_gradient`` of many tensors: equal to the loop bit for bit, one launch on a GPU.

    Args:
        grads, scales: lists of L arrays.
        differences: [n], shared by all tensors.
        surrogates, offsets, row_pitches: one for all, or a list of L.
        tensors: list of L tensor numbers.
        outs: None, or a list of L outputs; each may be its gradient.
        seed, step, gamma, norm, first_probe, noise: as in ``assemble_gradient``, shared by all.

    Returns:
        list of L float32 gradients.

    Raises:
        ValueError, TypeError: as ``assemble_gradient``, and lists of unequal length.

    Example:
        >>> import torch
        >>> g, one = torch.ones(1, 4), torch.tensor(1.0)
        >>> len(assemble_gradient_many([g, g], [one, one], torch.tensor([0.5]), "clipped",
        ...                            tensors=[0, 1], seed=0, step=0, gamma=1.0, norm=2.0))
        2
    """
    op = "assemble_gradient_many"
    grads = _check.sequence(op, "grads", grads, None)
    n = len(grads)
    scales = _check.sequence(op, "scales", scales, n, "grads")
    if outs is not None:
        outs = _check.each(op, "outs", outs, n, "grads")
    key = (
        *map(_array.signature, grads), *map(_array.signature, scales),
        _array.signature(differences), _plans.entries(surrogates), noise,
        first_probe, type(first_probe), _plans.entries(tensors), _plans.entries(offsets),
        _plans.entries(row_pitches), outs if outs is None else tuple(map(_array.signature, outs)),
    )  # fmt: skip
    plan = _MANY.known(key)
    if plan is None:
        own = surrogates, tensors, offsets, row_pitches
        arrays = grads, scales, differences, outs
        plan = _MANY.make(key, _checked_many, op, *arrays, own, noise, first_probe)
    v = plan.parts[0].view
    scalars = _check.scalars(op, v, seed, step, gamma, norm)
    if outs is not None:
        _check_memory(op, grads, scales, differences, outs)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        given = grads, scales, differences, outs, *scalars
        done: list[Any] = _dispatch.run_prepared(op, launch, v.device, scales, *given)
        return done
    rows = zip(plan.parts, grads, scales, strict=True)
    calls = [_call(part, grad, scale, differences, scalars) for part, grad, scale in rows]
    outs = [None] * n if outs is None else outs
    return list(_dispatch.call(op, v.kind, v.device, (), scales, out=outs, calls=calls))


class _Plan(NamedTuple):
    view: _check.View
    draw: _check.Draw  # at seed and step 0
    launches: _dispatch.Launches


class _ManyPlan(NamedTuple):
    parts: list[_Plan]
    launches: _dispatch.Launches


_ONE: _plans.Plans[_Plan] = _plans.Plans()
_MANY: _plans.Plans[_ManyPlan] = _plans.Plans()


def _checked(
    op: str,
    grad: Any,
    scale: Any,
    differences: Any,
    noise: str,
    surrogate: str,
    *numbers: Any,
) -> _Plan:
    """Check one tensor's own arguments and what it shares with others, but for outputs."""
    v = _check.weight(op, grad, scale, name="grad", differences=differences)
    _check.dtype(op, "differences", differences, "float32", "float64")
    shape = differences.shape
    if len(shape) != 1 or shape[0] < 1:
        got = f"has shape {tuple(shape)}"
        _check.fail(op, "differences", got, "(n,) with n >= 1 probes")
    probes = int(shape[0])
    draw = _check.draw(op, v, None, surrogate, noise, probes, *numbers)
    return _Plan(v, draw, _dispatch.Launches(op, v, (), v, draw))


def _checked_many(
    op: str,
    grads: list[Any],
    scales: list[Any],
    differences: Any,
    outs: list[Any] | None,
    each: tuple[Any, Any, Any, Any],
    noise: str,
    first_probe: int,
) -> _ManyPlan:
    """Check many tensors, but for the outputs' memory.

    each: surrogates, tensors, offsets, row_pitches.
    """
    n = len(grads)
    columns = (
        _check.each(op, "surrogates", each[0], n, "grads"),
        _check.sequence(op, "tensors", each[1], n, "grads"),
        _check.each(op, "offsets", each[2], n, "grads"),
        _check.each(op, "row_pitches", each[3], n, "grads"),
    )
    parts = [
        _checked(op, grad, scale, differences, noise, surrogate, first_probe, *place)
        for grad, scale, surrogate, *place in zip(grads, scales, *columns, strict=True)
    ]
    for grad, part, out in zip(grads, parts, outs or [None] * n, strict=True):
        _check.view(op, "grad", grad, out=out)
        _outputs.fits(op, out, part.view.shape, "float32")
    settled = [(part.view, part.draw) for part in parts]
    return _ManyPlan(parts, _dispatch.Launches(op, parts[0].view, (), settled))


def _check_out(op: str, grad: Any, scale: Any, differences: Any, v: _check.View, out: Any) -> None:
    """Refuse an output of another kind, device, shape or dtype, or where an input lies."""
    _check.view(op, "grad", grad, out=out)
    _outputs.out(op, out, v.shape, "float32")
    _outputs.no_overlap(op, out, same=True, grad=grad)
    _outputs.no_overlap(op, out, scale=scale, differences=differences)


def _check_memory(
    op: str, grads: list[Any], scales: list[Any], differences: Any, outs: list[Any]
) -> None:
    """Refuse outputs of many tensors that share memory, but for one with its own gradient."""
    given = [out for out in outs if out is not None]
    for out in given:
        _outputs.written(op, out)
    others = [grad for grad, out in zip(grads, outs, strict=True) if grad is not out]
    if _outputs.are_apart(given, [*others, *scales, differences]):
        return
    for grad, scale, out in zip(grads, scales, outs, strict=True):
        _outputs.no_overlap(op, out, same=True, grad=grad)
        _outputs.no_overlap(op, out, scale=scale, differences=differences)
    written = {f"outs[{i}]": out for i, out in enumerate(outs)}
    read = {f"scales[{i}]": scale for i, scale in enumerate(scales)}
    for i, (grad, out) in enumerate(zip(grads, outs, strict=True)):
        if out is None or _array.extent(grad) != _array.extent(out):
            read[f"grads[{i}]"] = grad
    _outputs.apart(op, written, {**read, "differences": differences})


def _call(
    plan: _Plan, grad: Any, scale: Any, differences: Any, scalars: tuple[Any, Any, Any, Any]
) -> dict[str, Any]:
    """The call that a backend takes, without the output."""
    seed, step, gamma, norm = scalars
    return {
        "grad": grad,
        "scale": scale,
        "differences": differences,
        "draw": plan.draw.at(seed, step),
        "gamma": gamma,
        "norm": norm,
        "view": plan.view,
    }
