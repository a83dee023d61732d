"""Public operation: the one global norm of the whitened gradients."""

from __future__ import annotations

from typing import Any, NamedTuple

from .. import _array, _check, _dispatch, _outputs, _plans, _surrogate


@_dispatch.operation
def whitened_norm(
    grads: Any, scales: Any, surrogate: Any, *, noise: str = "published", out: Any = None
) -> Any:
    """N = float32(sqrt(sum over all tensors and elements of float64(gw)^2)), gw = g * (a * e).

    Args:
        grads: list of L float32 gradients of any shapes of at least one dimension.
        scales: list of L float32 scales > 0, each (), [N, 1] or [N, G, 1] for its gradient.
        surrogate: one name for all, or a list of L; it sets the radius e in bins.
        noise: "published" or "rademacher"; it sets the radius too.
        out: 0-dim float32 output, apart from all inputs in memory.

    Returns:
        0-dim float32 on the gradients' device. Infinite or NaN gradients give inf or NaN.

    Raises:
        ValueError: empty or unequal lists, shapes that do not match, (CPU) a scale that is not
            finite or under 2^-100.
        TypeError: another dtype or kind of array.

    Example:
        >>> import torch
        >>> g, a = torch.tensor([[3.0, 4.0]]), torch.tensor(2.0)
        >>> whitened_norm([g], [a], "hardtanh", noise="rademacher").item()
        10.0

    Source: Yang & Aamodt, arXiv 2510.23926; the global norm over unequal scales is ours.
    """
    op = "whitened_norm"
    grads = _check.sequence(op, "grads", grads, None)
    scales = _check.sequence(op, "scales", scales, len(grads), "grads")
    key = (
        *map(_array.signature, grads), *map(_array.signature, scales),
        _plans.entries(surrogate), noise, out if out is None else _array.signature(out),
    )  # fmt: skip
    plan = _PLANS.find(key, _checked, op, grads, scales, surrogate, noise, out)
    if out is not None:
        _outputs.written(op, out)
        if not _outputs.are_apart([out], [*grads, *scales]):
            read = {f"grads[{i}]": g for i, g in enumerate(grads)}
            read |= {f"scales[{i}]": a for i, a in enumerate(scales)}
            _outputs.apart(op, {"out": out}, read)
    v = plan.views[0]
    launch = plan.launches[_dispatch.forced()]
    if launch is not None:
        return _dispatch.run_prepared(op, launch, v.device, scales, grads, scales, out)
    return _dispatch.call(
        op,
        v.kind,
        v.device,
        (),
        scales,
        out=out,
        grads=grads,
        scales=scales,
        surrogates=plan.surrogates,
        noise=noise,
        views=plan.views,
    )


class _Plan(NamedTuple):
    views: list[_check.View]
    surrogates: list[str]
    launches: _dispatch.Launches


_PLANS: _plans.Plans[_Plan] = _plans.Plans()


def _checked(
    op: str, grads: list[Any], scales: list[Any], surrogate: Any, noise: str, out: Any
) -> _Plan:
    """Check all but the output's memory."""
    surrogates = _check.each(op, "surrogate", surrogate, len(grads), "grads")
    for name in surrogates:
        _surrogate.check(op, name, noise)
    views = []
    for g, a in zip(grads, scales, strict=True):
        views.append(_check.weight(op, g, a, name="grads", first=grads[0], out=out))
    _outputs.fits(op, out, (), "float32")
    return _Plan(views, surrogates, _dispatch.Launches(op, views[0], (), views, surrogates, noise))
