"""Several processes, each with a part of the batch: one estimate, that of the whole batch."""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from ranks import COUNT, in_two_processes
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel as DDP

import fogzo
from fogzo import FOGZO, NSPSA, STE
from fogzo.estimators import _ranks

GENERATOR = torch.Generator().manual_seed(1)
X, Y = torch.randn(16, 8, generator=GENERATOR), torch.arange(16) % 4
# Two products of at most 16 terms, a tanh and a log-softmax, a mean of 16 numbers: sums of at most
# 16 terms whose magnitudes add up to less than 64.
LOSS_ERROR = 64 * 16 * torch.finfo(torch.float32).eps
STEPS = 2
CASES: dict[str, tuple[Any, dict[str, Any]]] = {
    "FOGZO": (FOGZO, {}),
    "batched": (FOGZO, {"probes_mode": "batched"}),
    "forward": (FOGZO, {"difference": "forward"}),
    "int8": (FOGZO, {"probe_dtype": "int8"}),
    "NSPSA": (NSPSA, {}),
}


class Ranged(nn.Module):
    """Divides by a running range: a buffer that a forward reads and then writes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("range", torch.tensor(1.0))

    def forward(self, x: Tensor) -> Tensor:
        y = x / self.range.clone()
        self.range.mul_(0.5).add_(x.detach().abs().max(), alpha=0.5)
        return y


def make(norm: bool = False) -> nn.Sequential:
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 4)]
    if norm:
        layers[1:1] = [nn.BatchNorm1d(16), Ranged()]
    model = nn.Sequential(*layers)
    return fogzo.quantize_(model)


def train(model: nn.Module, kind: Any, options: dict[str, Any], rows: slice) -> dict[str, Any]:
    """Two steps without an optimizer: gradients, and the figures of the second."""
    est = kind(model, probes=2, seed=3, **options)
    for _ in range(STEPS):
        model.zero_grad()
        loss = est.backward(lambda: F.cross_entropy(model(X[rows]), Y[rows]))
    return {
        "grads": [p.grad for p in model.parameters()],
        "losses": est.last.losses,
        "loss": loss,
        "mode": est.last.probes_mode,
    }


def in_buckets(kind: Any, plain: int, rows: slice, views: bool) -> list[Tensor]:
    """Gradients of three calls that add up, of which the second is tried in vain at first.

    Args:
        plain: iterations before; in the second one the wrapper lays out its buckets anew.
        views: whether gradients lie in the buckets.
    """
    wrapped = DDP(make(), find_unused_parameters=kind is NSPSA, gradient_as_bucket_view=views)
    for _ in range(plain):
        F.cross_entropy(wrapped(X[rows]), Y[rows]).backward()
        wrapped.zero_grad()
    est = kind(wrapped)

    def closure() -> Tensor:
        return F.cross_entropy(wrapped(X[rows]), Y[rows])

    def failing() -> Tensor:
        return 2 * closure() if torch.is_grad_enabled() else closure()[3]

    est.backward(closure)
    if kind is not STE:
        before = [(p, p.grad, p.grad.clone()) for p in wrapped.parameters()]
        with pytest.raises(IndexError):
            est.backward(failing)
        for p, grad, bits in before:
            assert p.grad is grad
            assert torch.equal(grad, bits)
    est.backward(closure)
    est.backward(closure)
    return [p.grad for p in wrapped.parameters()]


def two(rank: int) -> dict[str, Any]:
    rows = slice(rank * len(X) // COUNT, (rank + 1) * len(X) // COUNT)
    found: dict[str, Any] = {}
    for name, (kind, options) in CASES.items():
        # the quantized weights of NSPSA are constants to back-propagation
        wrapped = DDP(make(), find_unused_parameters=kind is NSPSA)
        found[name] = train(wrapped, kind, options, rows)
    for kind in (STE, NSPSA, FOGZO):
        for plain in (0, 2):
            found[f"buckets {kind.__name__} {plain}"] = [
                in_buckets(kind, plain, rows, views) for views in (False, True)
            ]
    wrapped = DDP(make(norm=True))
    est = FOGZO(wrapped)

    begun, broadcasts = [], []

    def closure() -> Tensor:
        broadcasts.append(wrapped.will_sync_module_buffers())
        loss = F.cross_entropy(wrapped(X[rows]), Y[rows])
        broadcasts.append(wrapped.will_sync_module_buffers())
        return loss

    wrapped.module[2].register_forward_pre_hook(lambda m, args: begun.append(m.range.item()))
    seen = []
    for _ in range(STEPS):
        est.backward(closure)
        seen.append(wrapped.module[1].running_mean.clone())
    found["statistics"], found["begun"] = seen, list(begun)
    found["broadcasts"] = list(broadcasts)
    # as in a torch whose wrapper has no such methods
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(_ranks, "OWN_SYNC", ("_no_longer_there", "_sync_buffers"))
        begun.clear()
        for _ in range(STEPS):
            est.backward(closure)
    found["begun without"] = list(begun)
    with wrapped.no_sync(), pytest.raises(RuntimeError, match="model is called inside no_sync"):
        est.backward(closure)
    with pytest.warns(UserWarning, match="each of the 2 processes probes with its own batch alone"):
        alone = FOGZO(wrapped.module)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        group = torch.distributed.group.WORLD
        given = FOGZO(wrapped.module, process_group=group)
    alone.backward(closure)
    given.backward(closure)
    found["alone"], found["given"] = alone.last.losses, given.last.losses
    copied = copy.deepcopy(given)
    assert copied._ranks.group is group
    return found


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    folder: Path = tmp_path_factory.mktemp("ranks")
    return in_two_processes(two, folder)


@pytest.mark.parametrize("case", CASES)
def test_all_processes_get_the_gradient_of_the_whole_batch(case, results):
    first, second = (found[case] for found in results)
    for a, b in zip(first["grads"], second["grads"], strict=True):
        assert torch.equal(a, b)
    assert torch.equal(first["losses"], second["losses"])
    assert not torch.equal(first["loss"], second["loss"])  # each its own part's
    kind, options = CASES[case]
    alone = train(make(), kind, options, slice(None))
    assert (first["losses"] - alone["losses"]).abs().max() <= 2 * LOSS_ERROR
    assert first["mode"] == alone["mode"] == options.get("probes_mode", "sequential")


@pytest.mark.parametrize("plain", [0, 2])
@pytest.mark.parametrize("kind", ["STE", "NSPSA", "FOGZO"])
def test_gradients_that_lie_in_the_wrappers_buckets_add_up(kind, plain, results):
    for found in results:
        own, views = found[f"buckets {kind} {plain}"]
        for a, b in zip(own, views, strict=True):
            assert torch.equal(a, b)


@pytest.fixture
def one_thread() -> Iterator[None]:
    """As the processes have: torch's products round otherwise in two, on some CPUs."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_probes_broadcast_no_buffers(results, one_thread):
    """Rank 0's statistics go to all at the next step's forward, as without probes."""
    (first, second), (other_first, other_second) = (found["statistics"] for found in results)
    assert not torch.equal(first, other_first)  # each of its own rows, until the next forward
    model = make(norm=True)
    norm = model[1]
    with torch.no_grad():
        norm(model[0](X[:8]))
        assert torch.equal(first, norm.running_mean)
        kept = norm.running_mean.clone()
        norm(model[0](X[:8]))
        assert torch.equal(second, norm.running_mean)
        norm.running_mean.copy_(kept)
        norm(model[0](X[8:]))
        assert torch.equal(other_second, norm.running_mean)


def test_forwards_of_a_step_begin_with_one_buffer(results):
    """Rank 0's, in all processes and probes; broadcast once, before the step's own forward."""
    without, there = (found["begun without"] for found in results)
    assert without == there
    assert len(set(without)) == STEPS
    begun, other = (found["begun"] for found in results)
    a_step = len(begun) // STEPS
    assert begun == other == [1.0] * a_step + [begun[-1]] * a_step
    assert begun[-1] != 1.0
    for found in results:
        own, *probes = (found["broadcasts"][i : i + 2] for i in range(0, 2 * a_step, 2))
        assert own == [False, True]  # the first before the call, the second after it
        assert probes == [[False, False]] * len(probes)


def test_a_group_averages_where_no_wrapper_is_seen(results):
    assert torch.equal(results[0]["given"], results[1]["given"])
    assert not torch.equal(results[0]["alone"], results[1]["alone"])


@pytest.mark.parametrize("name", _ranks.SWITCHES)
def test_a_wrapper_without_what_is_needed_is_refused(name, tmp_path, monkeypatch):
    meeting = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        wrapped = DDP(make())
        FOGZO(wrapped)
        delattr(wrapped, name)
        text = f"model holds a DistributedDataParallel without {name}, expected one of torch 2.11"
        with pytest.raises(RuntimeError, match=text):
            FOGZO(wrapped)
    finally:
        torch.distributed.destroy_process_group()


def test_data_parallel_is_refused():
    text = "model holds an nn.DataParallel, whose threads share no random state, expected"
    with pytest.raises(TypeError, match=text):
        FOGZO(nn.DataParallel(make()))


@pytest.mark.parametrize("original", [False, True])
def test_flat_weights_are_refused(original, tmp_path):
    """FSDP1, by every estimator; with use_orig_params it looks like a closure's backward()."""
    from torch.distributed.fsdp import FullyShardedDataParallel

    meeting = f"file://{tmp_path}/meeting"
    torch.distributed.init_process_group("gloo", init_method=meeting, rank=0, world_size=1)
    try:
        cpu = torch.device("cpu")
        flat = FullyShardedDataParallel(make(), device_id=cpu, use_orig_params=original)
        for kind in (STE, NSPSA, FOGZO):
            text = f"{kind.__name__}: model holds a FullyShardedDataParallel, whose weights are pa"
            with pytest.raises(TypeError, match=text):
                kind(nn.Sequential(flat))
    finally:
        torch.distributed.destroy_process_group()
