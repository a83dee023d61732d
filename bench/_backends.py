"""The same call once per backend that takes it on this machine."""

from __future__ import annotations

from collections.abc import Callable

import torch

import fogzo_kernels as fk


def backend_calls(
    op: str, call: Callable[[], torch.Tensor], timed: tuple[str, ...] = ("cpu", "reference")
) -> dict[str, Callable[[], torch.Tensor]]:
    """A call per usable CPU backend, by name, each checked bit-equal to the reference's result.

    Args:
        op: name in fk.capabilities().
        call: runs the op on CPU tensors through the backend in force.
        timed: the backends wanted.
    """

    def on(name: str) -> Callable[[], torch.Tensor]:
        def forced() -> torch.Tensor:
            with fk.use_backend(name):
                return call()

        return forced

    with fk.use_backend("reference"):
        expected = call().clone()
    usable = fk.capabilities()[op]
    calls = {}
    for name in timed:
        if usable[name] is not None:
            continue
        got = on(name)()
        if not torch.equal(got, expected):
            raise RuntimeError(f"bench {op}: {name} differs from the reference")
        calls[name] = on(name)
    return calls
