"""Public operation: all perturbed, quantized copies of a weight in one pass."""

from __future__ import annotations

from typing import Any

from .. import _array, _check, _dispatch, _outputs, _plans
from .._types import Grid, arrays_of
from .plan import MANY, ONE, call_of, check_apart, check_out, checked, checked_many


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
    key = (
        _array.signatures(w, grad, scale), grid, noise, form, sides, surrogate,
        probes, first_probe, tensor, offset, row_pitch,
        type(probes), type(first_probe), type(tensor), type(offset), type(row_pitch),
    )  # fmt: skip
    plan = ONE.known(key)
    if plan is None:
        numbers = probes, first_probe, tensor, offset, row_pitch
        plan = ONE.make(
            key, checked, op, w, grad, scale, grid, noise, form, sides, surrogate, *numbers
        )
    v = plan.view
    scalars = _check.scalars(op, v, seed, step, gamma, norm)
    if out is not None:
        check_out(op, w, grid, v, out, form, plan.side_count)
    if flip_count is not None:
        if grid is None:
            _check.fail(op, "flip_count", "is given with grid None", "None, as nothing is rounded")
        _check.view(op, "w", w, flip_count=flip_count)
        _outputs.out(op, flip_count, (plan.side_count,), "int64", "flip_count")
    if out is not None or flip_count is not None:
        written = {**arrays_of("out", out), "flip_count": flip_count}
        _outputs.apart(op, written, {"w": w, "grad": grad, "scale": scale})
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        arguments = w, grad, scale, out, flip_count, *scalars
        return _dispatch.run_prepared(op, launch, v.device, (scale,), *arguments)
    call = call_of(form, scalars, plan, w, grad, scale, grid, out)
    return _dispatch.call(
        op,
        v.kind,
        v.device,
        (form, len(v.shape)),
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
    grads = _check.sequence(op, "grads", grads, n, "ws")
    scales = _check.sequence(op, "scales", scales, n, "ws")
    if outs is not None:
        outs = _check.sequence(op, "outs", outs, n, "ws")
    arrays = ws, grads, scales
    key = (
        *map(_array.signatures, *arrays), _plans.entries(grids), _plans.entries(surrogates),
        noise, form, sides, probes, first_probe, type(probes), type(first_probe),
        _plans.entries(tensors), _plans.entries(offsets), _plans.entries(row_pitches),
        flip_counts if flip_counts is None else _array.signature(flip_counts),
    )  # fmt: skip
    plan = MANY.known(key)
    if plan is None:
        names, shared = (noise, form, sides), (probes, first_probe)
        own = grids, surrogates, tensors, offsets, row_pitches
        plan = MANY.make(key, checked_many, op, arrays, own, names, shared, flip_counts)
    v = plan.parts[0].view
    scalars = _check.scalars(op, v, seed, step, gamma, norm)
    if outs is not None:
        for w, grid, part, out in zip(ws, plan.grids, plan.parts, outs, strict=True):
            if out is not None:
                check_out(op, w, grid, part.view, out, form, part.side_count)
    if flip_counts is not None:
        _outputs.written(op, flip_counts, "flip_counts")
    if outs is not None or flip_counts is not None:
        check_apart(op, arrays, outs, flip_counts)
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        given = ws, grads, scales, outs, flip_counts, *scalars
        done: list[Any] = _dispatch.run_prepared(op, launch, v.device, scales, *given)
        return done
    outs = [None] * n if outs is None else outs
    rows = zip(plan.parts, *arrays, plan.grids, outs, strict=True)
    results: list[Any] = _dispatch.call(
        op,
        v.kind,
        v.device,
        plan.cases,
        scales,
        out=(outs, flip_counts),
        calls=[call_of(form, scalars, *row) for row in rows],
        count_flips=flip_counts is not None,
    )[0]
    return results
