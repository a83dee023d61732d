"""Public operation: the estimated gradient from the seed and the loss differences."""

from __future__ import annotations

from typing import Any

from .. import _array, _check, _dispatch


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
    v, call = _prepare(
        "assemble_gradient",
        grad,
        scale,
        differences,
        surrogate,
        out,
        seed=seed,
        step=step,
        tensor=tensor,
        gamma=gamma,
        norm=norm,
        first_probe=first_probe,
        noise=noise,
        offset=offset,
        row_pitch=row_pitch,
    )
    return _dispatch.call("assemble_gradient", v.kind, v.device, (), (scale,), out=out, **call)


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
    outs = _check.each(op, "outs", outs, n, "grads")
    columns = zip(
        grads,
        _check.sequence(op, "scales", scales, n, "grads"),
        _check.each(op, "surrogates", surrogates, n, "grads"),
        _check.sequence(op, "tensors", tensors, n, "grads"),
        _check.each(op, "offsets", offsets, n, "grads"),
        _check.each(op, "row_pitches", row_pitches, n, "grads"),
        outs,
        strict=True,
    )
    prepared = []
    for grad, scale, surrogate, tensor, offset, row_pitch, out in columns:
        one = _prepare(
            op,
            grad,
            scale,
            differences,
            surrogate,
            out,
            first=grads[0],
            seed=seed,
            step=step,
            tensor=tensor,
            gamma=gamma,
            norm=norm,
            first_probe=first_probe,
            noise=noise,
            offset=offset,
            row_pitch=row_pitch,
        )
        prepared.append(one)
        # scalars that all tensors share: as the first check has read them
        gamma, norm = one[1]["gamma"], one[1]["norm"]
    if any(out is not None for out in outs):
        written = {f"outs[{i}]": out for i, out in enumerate(outs)}
        read = {f"scales[{i}]": call["scale"] for i, (_, call) in enumerate(prepared)}
        for i, (grad, out) in enumerate(zip(grads, outs, strict=True)):
            if out is None or _array.extent(grad) != _array.extent(out):
                read[f"grads[{i}]"] = grad
        _check.apart(op, written, {**read, "differences": differences})
    view = prepared[0][0]
    calls = [call for _, call in prepared]
    scales = tuple(call["scale"] for call in calls)
    results = _dispatch.call(op, view.kind, view.device, (), scales, out=outs, calls=calls)
    return list(results)


def _prepare(
    op: str,
    grad: Any,
    scale: Any,
    differences: Any,
    surrogate: str,
    out: Any,
    *,
    gamma: Any,
    norm: Any,
    first: Any = None,
    **coordinates: Any,
) -> tuple[_check.View, dict[str, Any]]:
    """Check one tensor's arguments: its view and the call."""
    v = _check.weight(op, grad, scale, name="grad", differences=differences, first=first, out=out)
    _check.dtype(op, "differences", differences, "float32", "float64")
    if len(differences.shape) != 1 or differences.shape[0] < 1:
        got = f"has shape {tuple(differences.shape)}"
        _check.fail(op, "differences", got, "(n,) with n >= 1 probes")
    probes = differences.shape[0]
    draw = _check.draw(op, v, None, surrogate, probes=probes, **coordinates)
    gamma, norm = _check.gamma(op, gamma, v), _check.norm(op, norm, v)
    _check.out(op, out, v.shape, "float32")
    _check.no_overlap(op, out, same=True, grad=grad)
    _check.no_overlap(op, out, scale=scale, differences=differences)
    call = {
        "grad": grad,
        "scale": scale,
        "differences": differences,
        "draw": draw,
        "gamma": gamma,
        "norm": norm,
        "view": v,
    }
    return v, call
