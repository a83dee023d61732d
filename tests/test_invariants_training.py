"""DESIGN's invariants 1 to 3 as training sees them: probes leave no trace, and noise differs."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, STE, QuantConfig

X = torch.randn(12, 8, generator=torch.Generator().manual_seed(1))


class Counting(nn.Module):
    """Adds a buffer that every forward changes, and the forward's value depends on."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x + self.count


def make(config: QuantConfig | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Linear(8, 8), nn.BatchNorm1d(8), nn.Dropout(0.3), nn.Linear(8, 8), Counting()
    )
    return fogzo.quantize_(model, config)


def loss_of(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), torch.arange(12) % 8)


def bits(parameters: Iterable[Tensor]) -> list[tuple[Tensor, int]]:
    return [(p.detach().clone(), p._version) for p in parameters]


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
@pytest.mark.parametrize("everything", [False, True])
def test_probes_never_write_a_parameter(kind, everything):
    model = make()
    parameters = list(model.parameters())
    before, seen = bits(parameters), []

    def closure() -> Tensor:
        seen.append(bits(parameters))
        return loss_of(model)

    kind(model, probes=3, everything=everything).backward(closure)
    seen.append(bits(model.parameters()))
    assert len(seen) == 8
    for now in seen:
        for (p, version), (q, old) in zip(now, before, strict=True):
            assert torch.equal(p, q)
            assert version == old  # not written and restored: never written


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
@pytest.mark.parametrize("scale", ["fixed", "absmax"])
def test_probes_leave_buffers_and_random_state_as_one_forward_does(kind, scale):
    config = QuantConfig(scale=scale)
    plain, probed = make(config), make(config)
    ste, est = STE(plain), kind(probed, probes=2)
    for _ in range(3):
        torch.manual_seed(5)
        loss = ste.backward(lambda: loss_of(plain))
        state = torch.get_rng_state()
        torch.manual_seed(5)
        assert torch.equal(est.backward(lambda: loss_of(probed)), loss)
        assert torch.equal(torch.get_rng_state(), state)
        for (name, a), b in zip(plain.named_buffers(), probed.buffers(), strict=True):
            assert torch.equal(a, b), name
    assert probed[4].count == 3


def test_every_forward_of_a_step_sees_the_same_dropout_and_buffers():
    model, seen = make(), []

    def closure() -> Tensor:
        torch.rand(3)
        seen.append((torch.get_rng_state(), model[4].count.clone(), model[1].running_mean.clone()))
        return loss_of(model)

    FOGZO(model, probes=2).backward(closure)
    assert len(seen) == 5
    for forward in seen[1:]:
        assert all(torch.equal(a, b) for a, b in zip(forward, seen[0], strict=True))


@pytest.mark.parametrize("kind", [NSPSA, FOGZO])
def test_the_random_state_is_the_unperturbed_forwards_whatever_probes_draw(kind):
    model, after = make(), []

    def closure() -> Tensor:
        if after:
            torch.rand(5)
        loss = loss_of(model)
        after.append(torch.get_rng_state())
        return loss

    kind(model).backward(closure)
    assert torch.equal(torch.get_rng_state(), after[0])
    assert not torch.equal(after[1], after[0])


def test_parameters_do_not_depend_on_gamma():
    results = []
    for gamma in (0.0, 1e-3, 0.5):
        model = make()
        FOGZO(model, gamma=gamma).backward(loss_of, model)
        results.append(list(model.parameters()))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_same_shape_tensors_steps_and_probes_get_different_noise():
    model = make()
    est, seen = NSPSA(model, probes=2), []
    for _ in range(2):
        model.zero_grad()

        def closure() -> Tensor:
            for layer in (model[0], model[3]):
                if not torch.is_grad_enabled():
                    seen.append(layer.quantized_weight() - layer.weight)
            return loss_of(model)

        est.backward(closure)
    assert len(seen) == 2 * 4 * 2  # steps, sides, tensors
    assert all(not torch.equal(a, b) for i, a in enumerate(seen) for b in seen[:i])


def test_two_runs_are_equal_bit_for_bit():
    def run() -> list[Tensor]:
        model = make()
        est, optimizer = FOGZO(model, probes=2, seed=3), torch.optim.SGD(model.parameters(), 0.1)
        torch.manual_seed(1)
        for _ in range(3):
            est.backward(lambda: loss_of(model))
            optimizer.step()
            optimizer.zero_grad()
        return [p.detach() for p in model.parameters()]

    assert all(torch.equal(a, b) for a, b in zip(run(), run(), strict=True))


def test_tied_layers_share_one_perturbation():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8))
    model[2].weight = model[0].weight
    fogzo.quantize_(model)
    pairs = []

    def closure() -> Tensor:
        pairs.append((model[0]._probe_weight, model[2]._probe_weight))
        return loss_of(model)

    est = FOGZO(model)
    est.backward(closure)
    assert all(a is b for a, b in pairs)
    assert pairs[1][0] is not None
    assert list(est.last.flips) == ["0.weight"]


def test_a_recurrent_layer_is_perturbed_by_everything():
    torch.manual_seed(0)
    model = nn.ModuleDict({"rnn": nn.GRU(4, 6, batch_first=True), "head": nn.Linear(6, 8)})
    fogzo.quantize_(model)
    x, outputs = torch.randn(12, 3, 4), []

    def closure() -> Tensor:
        out, _ = model["rnn"](x)  # keeps its own list of weights
        outputs.append(out.detach())
        return F.cross_entropy(model["head"](out[:, -1]), torch.arange(12) % 8)

    FOGZO(model, everything=True).backward(closure)
    base, plus, minus = outputs
    assert not torch.equal(plus, minus)
    model.zero_grad()
    closure()
    assert torch.equal(outputs[-1], base)


def test_eval_mode_attention_is_probed_as_the_guide_was_taken():
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = fogzo.quantize_(nn.Sequential(nn.TransformerEncoder(layer, 1), nn.Linear(8, 8))).eval()
    fused = []

    def closure() -> Tensor:
        fused.append(torch.backends.mha.get_fastpath_enabled())
        return F.cross_entropy(model(X[None])[0], torch.arange(12) % 8)

    FOGZO(model).backward(closure)
    assert fused == [True, False, False]
    assert torch.backends.mha.get_fastpath_enabled()


def test_probes_of_two_threads_leave_the_fused_attention_as_it_was():
    """The first is in its probes when the second's begin, and done before they end."""
    second_probes, first_is_done = threading.Event(), threading.Event()
    seen: list[bool] = []

    def run(of_probe: Callable[[], object]) -> None:
        model = make()

        def closure() -> Tensor:
            if not torch.is_grad_enabled():
                of_probe()
            return loss_of(model)

        FOGZO(model).backward(closure)

    def of_second() -> None:
        second_probes.set()
        first_is_done.wait(60)
        seen.append(torch.backends.mha.get_fastpath_enabled())

    def first() -> None:
        run(lambda: second.is_alive() or second.start() or second_probes.wait(60))
        first_is_done.set()

    second = threading.Thread(target=run, args=(of_second,))
    thread = threading.Thread(target=first)
    thread.start()
    thread.join(60)
    second.join(60)
    assert seen == [False, False]
    assert torch.backends.mha.get_fastpath_enabled()
