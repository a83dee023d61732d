"""Probes of a model that several processes train: one perturbation, the mean of all losses."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from fogzo_kernels import _check

from .._warn import warn

WHOLE = "whole weights in each process: nn.parallel.DistributedDataParallel"
# attributes of DistributedDataParallel that its documentation does not name: what an estimator
# cannot do without, and what it can
SWITCHES = ("require_forward_param_sync", "require_backward_grad_sync")
OWN_SYNC = ("_check_sync_bufs_pre_fwd", "_sync_buffers")


class Ranks:
    """The processes whose batches make one batch, those of a DistributedDataParallel in the model.

    Its backward pass averages the gradients, so each process has the same guide and draws the same
    noise; the losses of the probes are averaged here, and G is then the same in every process.

    Args:
        op: for error texts. model: as the estimator's.
        group: a torch.distributed process group, or None: the wrapper's own, if there is one.
    """

    def __init__(self, op: str, model: nn.Module, group: Any) -> None:
        self._wrappers = [m for m in model.modules() if isinstance(m, DistributedDataParallel)]
        for wrapper in self._wrappers:
            for name in SWITCHES:
                if not hasattr(wrapper, name):
                    got = f"holds a DistributedDataParallel without {name}"
                    expected = f"one of torch 2.11 to 2.13 in place of {torch.__version__}"
                    _check.fail(op, "model", got, expected, RuntimeError)
        for module in model.modules():
            if isinstance(module, nn.DataParallel):
                got = "holds an nn.DataParallel, whose threads share no random state"
                _check.fail(op, "model", got, WHOLE, TypeError)
        self._weights = list(model.named_parameters())
        self._check_whole(op)
        self._given, self._checked = group, False
        alone = group is None and not self._wrappers
        if alone and dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
            warn(
                f"{op}: model holds no DistributedDataParallel: each of the "
                f"{dist.get_world_size()} processes probes with its own batch alone; give the "
                "estimator the wrapped model, or process_group="
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> Ranks:
        """A copy for the copied wrappers; a process group has no copies."""
        from copy import deepcopy

        new = object.__new__(Ranks)
        new._wrappers, new._given = deepcopy(self._wrappers, memo), self._given
        new._weights, new._checked = deepcopy(self._weights, memo), False
        return new

    def _check_whole(self, op: str) -> None:
        """Refuse parameters that are parts of tensors."""
        sharded = sys.modules.get("torch.distributed.tensor")
        if sharded is None:  # then there are none
            return
        for name, weight in self._weights:
            if isinstance(weight, sharded.DTensor):
                _check.fail(op, name, "is a DTensor, sharded over processes", WHOLE, TypeError)

    @property
    def group(self) -> Any:
        if self._given is not None:
            return self._given
        return self._wrappers[0].process_group if self._wrappers else None

    def check(self, call: str) -> None:
        """Refuse a call that would leave the processes with unequal guides."""
        if not self._checked:
            self._check_whole(call)
            self._checked = True
        if any(not wrapper.require_backward_grad_sync for wrapper in self._wrappers):
            got = "is called inside no_sync()"
            expected = "a call outside of it: G is made of gradients that are averaged already"
            _check.fail(call, "model", got, expected, RuntimeError)

    @contextmanager
    def step(self) -> Iterator[None]:
        """A step: buffers are broadcast here and not by its first forward.

        So what is kept of them for the probes is what that forward begins with.
        """
        try:
            for wrapper in self._wrappers:
                sync_buffers(wrapper)
            self._broadcast_buffers(False)
            yield
        finally:
            self._broadcast_buffers(True)

    def begin_probes(self) -> None:
        """From here to the end of the step no wrapper broadcasts buffers."""
        self._broadcast_buffers(False)

    def _broadcast_buffers(self, on: bool) -> None:
        for wrapper in self._wrappers:
            wrapper.require_forward_param_sync = on

    def mean(self, losses: Sequence[Tensor]) -> Sequence[Tensor]:
        """Of all processes, 0-dim each; the losses themselves where there is one process."""
        group = self.group
        if group is None or dist.get_world_size(group) == 1:
            return losses
        together = torch.stack(list(losses)).double()
        dist.all_reduce(together, group=group)
        return (together / dist.get_world_size(group)).unbind()


def sync_buffers(wrapper: DistributedDataParallel) -> None:
    """What the wrapper's next forward would do about its buffers: give all the first process's."""
    due, sync = (getattr(wrapper, name, None) for name in OWN_SYNC)
    if due is not None and sync is not None:
        if due():
            sync()
    elif wrapper.will_sync_module_buffers():
        group = wrapper.process_group
        first = dist.get_global_rank(group, 0)
        for buffer in wrapper.module.buffers():
            dist.broadcast(buffer.detach(), first, group=group)


def refuse_flat(op: str, model: nn.Module) -> None:
    """Refuse FullyShardedDataParallel: it moves weights and gradients while a forward runs."""
    fsdp = sys.modules.get("torch.distributed.fsdp")
    if fsdp is None:  # then nothing is wrapped in one
        return
    if any(isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()):
        got = "holds a FullyShardedDataParallel, whose weights are parts of one flat tensor"
        _check.fail(op, "model", got, WHOLE, TypeError)
