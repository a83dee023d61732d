"""All probes in one forward: the losses of the forwards one after the other, or a reason."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from batched_nets import X, Y, loss_of, make
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA

EPS = torch.finfo(torch.float32).eps
# Three products, two norms and a log-softmax: every sum has at most 16 terms whose magnitudes add
# up to less than 64.
LOSS_ERROR = 64 * 16 * EPS


def run(kind: Any, mode: str, act_bits: int | None = None, **options: Any) -> Any:
    """Two steps: the estimator, the model and the random state behind them."""
    model = make(act_bits)
    est = kind(model, probes=3, seed=7, probes_mode=mode, **options)
    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("error", UserWarning)
        for _ in range(2):
            model.zero_grad()
            est.backward(loss_of(model), batch=(X, Y))
    return est, model, torch.get_rng_state()


OPTIONS: list[dict[str, Any]] = [
    {},
    {"difference": "forward"},
    {"probe_dtype": "int8"},
    {"probe_fraction": 0.5},
    {"everything": True},
    {"noise": "rademacher"},
    {"probe_dtype": "int8", "probe_fraction": 0.25, "difference": "forward"},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("act_bits", [None, 8, 1])
@pytest.mark.parametrize("kind", [FOGZO, NSPSA])
def test_batched_equals_sequential(kind, act_bits, options):
    one, model, state = run(kind, "sequential", act_bits, **options)
    all_, other, after = run(kind, "batched", act_bits, **options)
    assert all_.why_sequential is None
    assert (one.last.probes_mode, all_.last.probes_mode) == ("sequential", "batched")
    assert (one.last.losses - all_.last.losses).abs().max() <= 2 * LOSS_ERROR
    assert one.last.losses.std() > 100 * LOSS_ERROR  # losses that tell probes apart
    for name in ("flips", "float_probes", "forwards", "fallbacks"):
        assert getattr(one.last, name) == getattr(all_.last, name), name
    assert torch.equal(one.last.loss, all_.last.loss)
    assert torch.equal(state, after)
    for (name, a), b in zip(model.named_buffers(), other.buffers(), strict=True):
        assert torch.equal(a, b), name
    if kind is NSPSA:  # G of the differences that were measured
        for target in all_._targets:
            want = fk.assemble_gradient(
                target.weight.detach(), target.scale, all_.last.difference, target.surrogate,
                seed=7, step=1, tensor=target.number, gamma=1.0, norm=0.0, noise=all_.noise,
            )  # fmt: skip
            assert torch.equal(target.weight.grad, want)


def test_where_no_code_flips_the_difference_is_zero():
    model = make()
    with torch.no_grad():
        for layer in (model[0], model[4], model[6]):
            layer.weight.copy_(layer.quantized_weight())  # the middle of every basin
    est = FOGZO(model, gamma=1e-4, probes=2, probes_mode="batched")
    est.backward(loss_of(model), batch=(X, Y))
    assert sum(est.last.flips.values()) == 0
    assert est.last.difference.tolist() == [0.0, 0.0]


def test_the_forward_runs_once_for_all_probes():
    model, calls = make(), []

    def closure() -> Tensor:
        calls.append(model[0]._probe_weight)
        return loss_of(model)((X, Y))

    est = FOGZO(model, probes=5, probes_mode="batched")
    est.backward(closure)
    assert len(calls) == 2
    assert est.last.forwards == 3 + 10  # as many forwards' work as ever
    assert est.last.losses.shape == (5, 2)


def test_each_probe_normalises_by_statistics_of_its_own():
    """The same as the train-mode forwards one by one, whose running statistics go nowhere."""
    model = make()
    before = copy.deepcopy(model[1].state_dict())
    est = FOGZO(model, gamma=0.1, probes_mode="batched")
    outputs = []

    def closure() -> Tensor:
        h = model[1](model[0](X))
        outputs.append(h.square().mean())  # 1 for a batch that its own statistics normalised
        assert model.training
        return F.cross_entropy(model[6](model[5](model[4](F.gelu(h)))), Y) + outputs[-1]

    losses = est.backward(closure)
    assert losses.isfinite()
    assert est.last.probes_mode == "batched"
    assert model[1].num_batches_tracked == before["num_batches_tracked"] + 1
    assert isinstance(model[1].running_mean, Tensor)
    with torch.no_grad():
        h = model[0](X)
        want = 0.9 * before["running_mean"] + 0.1 * h.mean(0)
    assert torch.allclose(model[1].running_mean, want, atol=1e-6)


class Turned(nn.Module):
    """Draws for a tensor that does not lie row by row."""

    def __init__(self, draw: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.draw = draw

    def forward(self, x: Tensor) -> Tensor:
        return self.draw(x.view(12, 4, 4).permute(2, 0, 1)).permute(1, 2, 0).reshape(12, 16)


DRAWS: dict[str, Callable[[Tensor], Tensor]] = {
    "dropout": lambda x: F.dropout(x, 0.4),
    "dropout in place": lambda x: F.dropout(x * 1, 0.4, inplace=True),
    "bernoulli_": lambda x: x * torch.empty_like(x).bernoulli_(0.6),
    "uniform_": lambda x: x + torch.empty_like(x).uniform_(-1, 1),
    "rand_like": lambda x: x + torch.rand_like(x),
}


@pytest.mark.parametrize("draw", DRAWS)
def test_masks_lie_as_the_tensor_lies(draw):
    """As those of nn.TransformerEncoderLayer do, which turns its batch."""
    found = []
    for mode in ("sequential", "batched"):
        model = make()
        model.insert(2, Turned(DRAWS[draw]))
        est = FOGZO(model, probes=2, gamma=0.1, probes_mode=mode)
        torch.manual_seed(3)
        est.backward(loss_of(model), batch=(X, Y))
        assert est.last.probes_mode == mode
        found.append(est.last.losses)
    assert (found[0] - found[1]).abs().max() <= 2 * LOSS_ERROR


@pytest.mark.parametrize("options", [{}, {"probe_dtype": "int8"}], ids=str)
def test_group_norm_after_a_convolution(options):
    found = []
    for mode in ("sequential", "batched"):
        torch.manual_seed(0)
        layers = [nn.Unflatten(1, (2, 2, 2)), nn.Conv2d(2, 4, 2), nn.GroupNorm(2, 4), nn.Flatten()]
        model = fogzo.quantize_(nn.Sequential(*layers))
        est = FOGZO(model, probes=2, gamma=0.1, probes_mode=mode, **options)
        est.backward(loss_of(model), batch=(X, Y))
        assert est.last.probes_mode == mode
        found.append(est.last.losses)
    assert (found[0] - found[1]).abs().max() <= 2 * LOSS_ERROR


@pytest.mark.parametrize("kind", [FOGZO, NSPSA])
def test_an_unknown_mode_is_refused(kind):
    text = f"{kind.__name__}: probes_mode is 'vmap', expected one of sequential, batched"
    with pytest.raises(ValueError, match=text):
        kind(make(), probes_mode="vmap")


@pytest.mark.parametrize("shared", [True, False])
@pytest.mark.parametrize("dtype", ["float32", "int8"])
def test_vmap_of_probe_matmul_is_one_call_with_shared_rows(shared, dtype, monkeypatch):
    """x of the first layer is one for all sides, later ones have a row block a side."""
    grid, scale = fk.Grid("mid-rise", 2), torch.rand(5, 1) + 0.5
    codes = torch.randint(0, 4, (3, 5, 8), dtype=torch.uint8)
    x = torch.randn(7, 8) if shared else torch.randn(3, 7, 8)
    x_scale = None
    if dtype == "int8":
        x, x_scale = fk.quantize_activation(x)
    want = fk.probe_matmul(x, codes, scale, grid, x_scale=x_scale)
    room, calls = sys.modules["fogzo_kernels.probe_matmul"], []
    real = room._plan
    monkeypatch.setattr(room, "_plan", lambda *args: calls.append(args[1].shape) or real(*args))

    def one(codes: Tensor, x: Tensor, x_scale: Tensor | None) -> Tensor:
        return fk.probe_matmul(x, codes, scale, grid, x_scale=x_scale)[0]

    dim = None if shared else 0
    dims = (0, dim, None if x_scale is None else dim)
    got = torch.vmap(one, in_dims=dims)(codes, x, x_scale)
    assert torch.equal(got, want)
    assert calls == [x.shape]
