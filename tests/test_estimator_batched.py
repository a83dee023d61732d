"""All probes in one forward: the losses of the forwards one after the other, or a reason."""

from __future__ import annotations

import copy
import functools
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, QuantConfig
from fogzo.estimators import _turns

GENERATOR = torch.Generator().manual_seed(1)
X, Y = torch.randn(12, 8, generator=GENERATOR), torch.arange(12) % 4
EPS = torch.finfo(torch.float32).eps
# Three products, two norms and a log-softmax: every sum has at most 16 terms whose magnitudes add
# up to less than 64.
LOSS_ERROR = 64 * 16 * EPS


def make(act_bits: int | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 16),
        nn.BatchNorm1d(16),
        nn.GELU(),
        nn.Dropout(0.3),
        nn.Linear(16, 16, bias=False),
        nn.LayerNorm(16),
        nn.Linear(16, 4),
    )
    return fogzo.quantize_(model, QuantConfig(act_bits=act_bits))


def loss_of(model: nn.Module) -> Callable[[Any], Tensor]:
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1])


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


class Tracks(nn.Module):
    """Writes what it sees into a buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("seen", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.seen.add_(x.detach().mean(0))
        return x


class Branches(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.sum() > 0 else x


class Reads(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().abs().max().item() + 1)


class Draws(nn.Module):
    """Draws by the values it sees: what torch.vmap has no common numbers for."""

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.bernoulli(x.detach().sigmoid())


class Writes(nn.Module):
    """Writes into a tensor from elsewhere."""

    def __init__(self) -> None:
        super().__init__()
        self.out = torch.zeros(12, 16)

    def forward(self, x: Tensor) -> Tensor:
        if torch.is_grad_enabled():
            return x
        self.out.copy_(x)
        return self.out.clone()


class Stranger(nn.Module):
    """Draws another number where it meets a mapped tensor: its masks are not the step's."""

    def forward(self, x: Tensor) -> Tensor:
        if torch._C._functorch.is_batchedtensor(x):
            torch.rand(1)
        return F.dropout(x)


WHY = {
    Tracks: "output with shape .* doesn't match the broadcast shape",
    Branches: "data-dependent control flow",
    Reads: r"\.item\(\)",
    Draws: "randomness",
    Writes: "vmap: inplace arithmetic",
    Stranger: "it draws other random numbers than one forward does",
}


@pytest.mark.parametrize("module", WHY)
def test_what_cannot_be_mapped_falls_back_with_a_reason(module):
    model, plain = make(), make()
    for own in (model, plain):
        own.insert(2, module())
    est = FOGZO(model, probes=2, gamma=0.1, probes_mode="batched")
    text = f"^FOGZO: probes_mode 'batched' is not possible here.*{WHY[module]}"
    torch.manual_seed(3)
    with pytest.warns(UserWarning, match=text):
        est.backward(loss_of(model), batch=(X, Y))
    assert est.last.probes_mode == "sequential"
    assert est.last.why_sequential == est.why_sequential
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # said once
        est.backward(loss_of(model), batch=(X, Y))
    other = FOGZO(plain, probes=2, gamma=0.1)
    torch.manual_seed(3)
    for _ in range(2):
        other.backward(loss_of(plain), batch=(X, Y))
    assert torch.equal(est.last.losses, other.last.losses)
    for (name, a), b in zip(model.state_dict().items(), plain.state_dict().values(), strict=True):
        assert torch.equal(a, b), name


def test_a_closures_own_error_is_its_own():
    model = make()
    est = FOGZO(model, probes_mode="batched")

    def closure() -> Tensor:
        if not torch.is_grad_enabled():
            raise RuntimeError("mine")
        return loss_of(model)((X, Y))

    with pytest.warns(UserWarning, match="mine"), pytest.raises(RuntimeError, match="^mine$"):
        est.backward(closure)
    assert all(p.grad is None for p in model.parameters())

    def wrong() -> Tensor:
        loss = loss_of(model)((X, Y))
        return loss if torch.is_grad_enabled() else [loss]  # type: ignore[return-value]

    est = FOGZO(model, probes_mode="batched")
    with pytest.raises(TypeError, match="closure returned a list for a probe"):
        est.backward(wrong)


def test_the_reason_is_kept_in_the_state():
    model = make()
    model.insert(2, Reads())
    est = FOGZO(model, probes_mode="batched")
    with pytest.warns(UserWarning, match="one after the other"):
        est.backward(loss_of(model), batch=(X, Y))
    again = FOGZO(model, probes_mode="batched")
    again.load_state_dict(est.state_dict())
    calls = []
    model[0].register_forward_hook(lambda *_: calls.append(1))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        again.backward(loss_of(model), batch=(X, Y))
        assert again.why_sequential == est.why_sequential
        assert len(calls) == 3  # not tried
        ((name, (why, skipped)),) = est.state_dict()["why_sequential"].items()
        assert skipped == 0
        reasons = {name: [why, 99]}
        again.load_state_dict(est.state_dict() | {"why_sequential": reasons})
        again.backward(loss_of(model), batch=(X, Y))
        assert len(calls) == 3 + 4  # tried, and nothing said
        reasons = {name: [why, 0]}
    assert again.state_dict()["why_sequential"] == reasons
    for value in (3, {"a": "why"}, {"a": ["why", -1]}, {"a": [None, 0]}, {1: ["why", 0]}):
        bad = {**est.state_dict(), "why_sequential": value}
        with pytest.raises(TypeError, match=r"why_sequential is .*, expected texts and counts"):
            again.load_state_dict(bad)
    with pytest.raises(ValueError, match="probes_mode is 'batched', expected 'sequential'"):
        FOGZO(model).load_state_dict(est.state_dict())


class Switched(nn.Module):
    """Reads a value, which torch.vmap cannot, while it is on."""

    on = True

    def forward(self, x: Tensor) -> Tensor:
        return x * float(x.detach().abs().max().item() + 1) if self.on else x


class Steps:
    """Calls of an estimator: how many forwards each took, and by which mode."""

    def __init__(self, switch: Callable[[nn.Module], bool] = lambda model: True) -> None:
        self.model = make()
        self.model.insert(2, Switched())
        self.model[2].register_forward_pre_hook(
            lambda module, _: setattr(module, "on", switch(module))
        )
        self.est = FOGZO(self.model, gamma=0.1, probes_mode="batched")
        self.forwards = 0
        self.model[0].register_forward_hook(self.count)

    def count(self, *_: Any) -> None:
        self.forwards += 1

    def one(self, closure: Callable[..., Tensor] | None = None) -> tuple[str, int]:
        before = self.forwards
        self.est.backward(closure or loss_of(self.model), batch=(X, Y))
        assert self.est.why_sequential == self.est.last.why_sequential
        assert (self.est.why_sequential is None) == (self.est.last.probes_mode == "batched")
        return self.est.last.probes_mode, self.forwards - before


def test_a_cause_that_passes_unseen_is_found_to_have_passed():
    """At every hundredth call; between them nothing is paid for it."""
    steps = Steps(lambda module: steps.est.calls < 60)
    with pytest.warns(UserWarning, match="one after the other") as found:
        seen = [steps.one() for _ in range(102)]
    assert len(found) == 1
    assert seen[0] == ("sequential", 4)  # the step's, a try, and two in turn
    assert set(seen[1:100]) == {("sequential", 3)}
    assert seen[100:] == [("batched", 2)] * 2


def test_a_cause_that_stays_is_tried_at_every_hundredth_call():
    steps = Steps()
    with pytest.warns(UserWarning, match="one after the other") as found:
        seen = [steps.one() for _ in range(102)]
    assert len(found) == 1
    assert [i for i, step in enumerate(seen) if step == ("sequential", 4)] == [0, 100]


def test_other_circumstances_are_tried_at_once():
    steps = Steps(lambda module: module.training)
    with pytest.warns(UserWarning, match="one after the other"):
        assert steps.one() == ("sequential", 4)
    steps.model.eval()
    assert steps.one() == ("batched", 2)
    assert steps.one() == ("batched", 2)
    steps.model.train()
    assert steps.one() == ("sequential", 3)  # known from before


def test_each_closure_has_a_reason_of_its_own():
    steps = Steps(lambda module: False)

    def reads(batch: Any) -> Tensor:
        loss = loss_of(steps.model)(batch)
        return loss * (1 + 0 * loss.detach().item())

    assert steps.one() == ("batched", 2)
    with pytest.warns(UserWarning, match="one after the other"):
        assert steps.one(reads) == ("sequential", 4)
    assert steps.one() == ("batched", 2)
    assert steps.one(reads) == ("sequential", 3)
    assert steps.one(functools.partial(reads)) == ("sequential", 3)
    (text,) = steps.est.state_dict()["why_sequential"]
    assert re.fullmatch(r".*reads:\d+, train, autocast None", text)
    for i in range(20):  # as many closures as one likes
        scope: dict[str, Any] = {"reads": reads}
        exec(f"def closure_{i}(batch): return reads(batch)", scope)
        steps.one(scope[f"closure_{i}"])
    assert len(steps.est.state_dict()["why_sequential"]) == 16


class Callable_:
    def __init__(self, model: nn.Module) -> None:
        self.model = model

    def __call__(self, batch: Any) -> Tensor:
        return loss_of(self.model)(batch)

    def method(self, batch: Any) -> Tensor:
        return self(batch)


def test_closures_without_code_of_their_own():
    steps = Steps(lambda module: False)
    own = Callable_(steps.model)
    assert steps.one(own) == ("batched", 2)
    assert steps.one(own.method) == ("batched", 2)


def test_a_closure_that_raises_by_itself_is_tried_again():
    steps, raising = Steps(lambda module: False), [True]

    def closure(batch: Any) -> Tensor:
        if raising[0] and not torch.is_grad_enabled():
            raise RuntimeError("mine")
        return loss_of(steps.model)(batch)

    with pytest.warns(UserWarning, match="mine"), pytest.raises(RuntimeError, match="^mine$"):
        steps.one(closure)
    steps.one()
    raising[0] = False
    assert steps.one(closure) == ("batched", 2)


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


def test_a_capture_tries_no_refused_closure_again():
    """A try that fails would end the capture; the first eager call behind it tries."""
    turns = _turns.Turns()
    assert turns.known("closure") is None
    turns.note("no rule")
    for _ in range(2 * _turns.AGAIN):
        assert turns.known("closure", captured=True) == "no rule"
        turns.note("no rule")
    assert turns.known("closure") is None
