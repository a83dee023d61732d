"""Public operation: the one global norm of the whitened gradients."""

from __future__ import annotations

from typing import Any

from .. import _check, _dispatch, _outputs, _surrogate


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
        out: 0-dim float32 output.

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
    surrogates = _check.each(op, "surrogate", surrogate, len(grads), "grads")
    for name in surrogates:
        _surrogate.check(op, name, noise)
    views = []
    for g, a in zip(grads, scales, strict=True):
        views.append(_check.weight(op, g, a, name="grads", first=grads[0], out=out))
    _outputs.out(op, out, (), "float32")
    if out is not None:
        _outputs.apart(op, {"out": out}, {f"grads[{i}]": g for i, g in enumerate(grads)})
    first = views[0]
    return _dispatch.call(
        op,
        first.kind,
        first.device,
        (),
        tuple(scales),
        out=out,
        grads=grads,
        scales=scales,
        surrogates=surrogates,
        noise=noise,
        views=views,
    )
