"""Public operation: all perturbed, quantized copies of a weight in one pass."""

from __future__ import annotations

from typing import Any

from .. import _check, _dispatch
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
            with room for fewer flips than there are is an error.

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
    v, case, outputs, call = _prepare(
        "perturb_quantize",
        w,
        grad,
        scale,
        grid,
        surrogate,
        gamma=gamma,
        norm=norm,
        form=form,
        sides=sides,
        flip_count=flip_count,
        out=out,
        seed=seed,
        step=step,
        tensor=tensor,
        probes=probes,
        first_probe=first_probe,
        noise=noise,
        offset=offset,
        row_pitch=row_pitch,
    )
    return _dispatch.call(
        "perturb_quantize", v.kind, v.device, case, (scale,), out=outputs, **call
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
        flip_counts, outs: None, or a list of L outputs.
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
        _check.each(op, "flip_counts", flip_counts, n, "ws"),
        _check.each(op, "outs", outs, n, "ws"),
        strict=True,
    )
    prepared = []
    for w, grad, scale, grid, surrogate, tensor, offset, row_pitch, flip_count, out in columns:
        one = _prepare(
            op,
            w,
            grad,
            scale,
            grid,
            surrogate,
            first=ws[0],
            gamma=gamma,
            norm=norm,
            form=form,
            sides=sides,
            flip_count=flip_count,
            out=out,
            seed=seed,
            step=step,
            tensor=tensor,
            probes=probes,
            first_probe=first_probe,
            noise=noise,
            offset=offset,
            row_pitch=row_pitch,
        )
        prepared.append(one)
        # scalars that all tensors share: as the first check has read them
        gamma, norm = one[3]["gamma"], one[3]["norm"]
    if outs is not None or flip_counts is not None:
        _check.apart(op, *_arrays_of(prepared))
    view = prepared[0][0]
    cases = tuple(dict.fromkeys(case for _, case, _, _ in prepared))
    results = _dispatch.call(
        op,
        view.kind,
        view.device,
        cases,
        tuple(call["scale"] for *_, call in prepared),
        out=[outputs for _, _, outputs, _ in prepared],
        calls=[call for *_, call in prepared],
    )
    return [result for result, _ in results]


def _prepare(
    op: str,
    w: Any,
    grad: Any,
    scale: Any,
    grid: Grid | None,
    surrogate: str | None,
    *,
    gamma: Any,
    norm: Any,
    form: str,
    sides: str,
    flip_count: Any,
    out: Any,
    first: Any = None,
    **coordinates: Any,
) -> tuple[_check.View, tuple[Any, ...], tuple[Any, Any], dict[str, Any]]:
    """Check one tensor's arguments: its view, what a backend may refuse, outputs, the call."""
    _check.choice(op, "form", form, FORMS)
    _check.choice(op, "sides", sides, tuple(SIDES))
    if grid is not None:
        _check.grid(op, grid)
    elif form != "values":
        _check.fail(op, "form", f"is {form!r} with grid None", "'values'")
    parts = _out_arrays(op, form, out)
    v = _check.weight(op, w, scale, grad=grad, flip_count=flip_count, first=first, **parts)
    _check.dtype(op, "grad", grad, "float32")
    _check.shape(op, "grad", grad, v.shape, ", w's")
    draw = _check.draw(op, v, grid, surrogate, **coordinates)
    gamma, norm = _check.gamma(op, gamma, v), _check.norm(op, norm, v)
    count = SIDES[sides] * draw.probes
    shape = (count, *v.shape)
    _check.result_size(op, "probes", f"is {draw.probes}", shape)
    if form == "packed" and grid is not None:
        _check.packed_out(op, out, shape, grid.storage_bits)
    elif form == "flips" and out is not None:
        _check.flips_out(op, out, v.shape, count)
    elif out is not None:
        _check.out(op, out, shape, "float32" if form == "values" else "uint8")
    if flip_count is not None and grid is None:
        _check.fail(op, "flip_count", "is given with grid None", "None, as nothing is rounded")
    _check.out(op, flip_count, (count,), "int64", "flip_count")
    if first is None and (parts or flip_count is not None):  # of many: all at once, by the caller
        inputs = {"w": w, "grad": grad, "scale": scale}
        _check.apart(op, {**parts, "flip_count": flip_count}, inputs)
    call = {
        "w": w,
        "grad": grad,
        "scale": scale,
        "grid": grid,
        "draw": draw,
        "gamma": gamma,
        "norm": norm,
        "form": form,
        "sides": SIDES[sides],
        "count_flips": flip_count is not None,
        "capacity": out.index.shape[1] if isinstance(out, Flips) else None,
        "view": v,
    }
    return v, (form, len(v.shape)), (out, flip_count), call


def _arrays_of(prepared: list[Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Outputs and inputs of all tensors, by the names an error gives them."""
    outputs: dict[str, Any] = {}
    inputs: dict[str, Any] = {}
    for i, (_, (form, _), (out, flip_count), call) in enumerate(prepared):
        for name, array in _out_arrays("", form, out).items():
            outputs[name.replace("out", f"outs[{i}]")] = array
        outputs[f"flip_counts[{i}]"] = flip_count
        inputs |= {f"{name}s[{i}]": call[name] for name in ("w", "grad", "scale")}
    return outputs, inputs


def _out_arrays(op: str, form: str, out: Any) -> dict[str, Any]:
    """The arrays inside ``out``, by the names an error gives them."""
    if out is None:
        return {}
    if form == "packed":
        if not isinstance(out, Packed):
            _check.fail(
                op, "out", f"is a {type(out).__name__}", "a fogzo_kernels.Packed", TypeError
            )
        return {"out.data": out.data}
    if form == "flips":
        if not isinstance(out, Flips):
            _check.fail(op, "out", f"is a {type(out).__name__}", "a fogzo_kernels.Flips", TypeError)
        return {f"out.{name}": getattr(out, name) for name in ("base", "index", "code", "count")}
    return {"out": out}
