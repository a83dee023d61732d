"""Probes that multiply integers: equal to a slow loop by hand on the reference."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, QuantConfig

X, Y = torch.randn(10, 8, generator=torch.Generator().manual_seed(1)), torch.arange(10) % 4
EPS = torch.finfo(torch.float32).eps
# A loss of two products, a tanh and a log-softmax of 4 numbers near 1; every sum has at most 16
# terms whose magnitudes add up to less than 64.
LOSS_ERROR = 64 * 16 * EPS


def make(act_bits: int | None = None, dropout: float = 0.0, **options: object) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6), nn.Dropout(dropout), nn.Tanh(), nn.Linear(6, 4))
    fogzo.quantize_(model, QuantConfig(act_bits=act_bits, **{"bits": 2, **options}))
    return model


def rounded(x: Tensor, bits: int = 8) -> Tensor:
    """DESIGN section 2, Activations, float64 from float32 codes and scales."""
    q = 2 ** (bits - 1) - 1
    a = x.float().abs().amax(-1, keepdim=True) / q
    codes = (x.float() / a).round().clamp(-q, q).nan_to_num(0)
    return codes.double() * a.double()


def loss_with(model: nn.Sequential, weights: list[Tensor], rows: int, bits: int = 8) -> float:
    """Of the products of integers, in float64 but where the layers round to float32."""
    first, second = (w.double() for w in weights)
    h = (rounded(X[:rows], bits) @ first.T + model[0].bias.double()).float()
    y = rounded(torch.tanh(h), bits) @ second.T + model[3].bias.double()
    return F.cross_entropy(y, Y[:rows]).item()


def by_hand(model, est, gs, *, n, difference, rows, gamma, norm, step=0, bits=8):
    """Losses of the probes, G, by the reference; gs are the guides."""
    layers = [model[0], model[3]]
    sides = {"central": "both", "forward": "plus"}[difference]
    shared = {"seed": est.seed, "step": step, "gamma": gamma, "norm": norm}
    with fk.use_backend("reference"), torch.no_grad():
        probes = [
            fk.perturb_quantize(
                layer.weight, g, layer.scale, layer.grid, tensor=i, probes=n, sides=sides, **shared
            )
            for i, (layer, g) in enumerate(zip(layers, gs, strict=True))
        ]
        measured = [loss_with(model, list(s), rows, bits) for s in zip(*probes, strict=True)]
        base = loss_with(model, [layer.quantized_weight() for layer in layers], rows, bits)
        pairs = [[plus, base] for plus in measured]
        if difference == "central":
            pairs = [measured[2 * i : 2 * i + 2] for i in range(n)]
        # G of the differences that the estimator measured: the rest is exact
        estimate = [
            fk.assemble_gradient(
                g, layer.scale, est.last.difference, layer.surrogate, tensor=i, **shared
            )
            for i, (layer, g) in enumerate(zip(layers, gs, strict=True))
        ]
    return torch.tensor(pairs, dtype=torch.float64), estimate


def guides(model: nn.Sequential) -> list[Tensor]:
    loss = F.cross_entropy(model(X), Y)
    return list(torch.autograd.grad(loss, [model[0].weight, model[3].weight]))


def loss_of(model):
    return lambda batch: F.cross_entropy(model(batch[0]), batch[1])


CASES = [("central", 1.0), ("central", 0.25), ("forward", 1.0), ("forward", 0.25)]
GRIDS = [
    {"bits": 2},
    {"grid": "sign", "scale": "absmean"},
    {"grid": "mid-tread", "bits": 4, "granularity": "group", "group_size": 2},
]


@pytest.mark.parametrize("options", GRIDS, ids=str)
@pytest.mark.parametrize(("difference", "fraction"), CASES)
@pytest.mark.parametrize("n", [1, 3])
def test_fogzo_equals_the_loop_by_hand(difference, fraction, n, options):
    model, rows = make(**options), math.ceil(fraction * len(X))
    est = FOGZO(
        model, probes=n, gamma=0.3, seed=5, difference=difference, probe_fraction=fraction,
        probe_dtype="int8",
    )  # fmt: skip
    gs = guides(model)
    loss = est.backward(loss_of(model), batch=(X, Y))
    assert loss.item() == F.cross_entropy(model(X), Y).item()  # not of integers
    pairs, estimate = by_hand(
        model, est, gs, n=n, difference=difference, rows=rows, gamma=0.3, norm=est.last.norm
    )
    assert (est.last.losses - pairs).abs().max() <= LOSS_ERROR
    sides = {"central": 2, "forward": 1}[difference]
    assert torch.equal(est.last.difference, (est.last.losses[:, 0] - est.last.losses[:, 1]) / sides)
    assert torch.equal(model[0].weight.grad, estimate[0])
    assert torch.equal(model[3].weight.grad, estimate[1])
    assert est.last.float_probes == []


@pytest.mark.parametrize("others", [True, False])
@pytest.mark.parametrize(("difference", "fraction"), CASES)
def test_nspsa_equals_the_loop_by_hand(difference, fraction, others):
    model, rows = make(), math.ceil(fraction * len(X))
    if not others:
        for layer in (model[0], model[3]):
            layer.bias.requires_grad_(False)
    est = NSPSA(
        model, probes=2, seed=5, difference=difference, probe_fraction=fraction, probe_dtype="int8"
    )
    est.backward(loss_of(model), batch=(X, Y))
    gs = [torch.zeros_like(model[0].weight), torch.zeros_like(model[3].weight)]
    pairs, estimate = by_hand(
        model, est, gs, n=2, difference=difference, rows=rows, gamma=1.0, norm=0.0
    )
    assert (est.last.losses - pairs).abs().max() <= LOSS_ERROR
    assert torch.equal(model[0].weight.grad, estimate[0])
    assert torch.equal(model[3].weight.grad, estimate[1])
    assert (model[0].bias.grad is not None) == others


@pytest.mark.parametrize("act_bits", [8, 4, 2])
@pytest.mark.parametrize("probe_dtype", [None, "int8"])
@pytest.mark.parametrize("difference", ["central", "forward"])
def test_layers_with_act_bits_keep_their_own_in_every_probe(act_bits, probe_dtype, difference):
    model = make(act_bits)
    est = FOGZO(model, probes=2, gamma=0.3, seed=5, difference=difference, probe_dtype=probe_dtype)
    gs = guides(model)
    est.backward(loss_of(model), batch=(X, Y))
    pairs, estimate = by_hand(
        model, est, gs, n=2, difference=difference, rows=10, gamma=0.3, norm=est.last.norm,
        bits=act_bits,
    )  # fmt: skip
    assert (est.last.losses - pairs).abs().max() <= LOSS_ERROR
    assert torch.equal(model[3].weight.grad, estimate[1])
    assert est.last.float_probes == []
    if difference == "forward":
        assert (est.last.losses[:, 1] == est.last.loss).all()
        assert est.last.forwards == 5, "the step's own forward is the base"


def test_nspsa_of_layers_with_act_bits_leaves_the_others_their_gradient():
    model, other = make(8), make(8)
    NSPSA(model).backward(loss_of(model), batch=(X, Y))
    loss = F.cross_entropy(other(X), Y)
    loss.backward()
    assert torch.equal(model[0].bias.grad, other[0].bias.grad)
    assert torch.equal(model[3].bias.grad, other[3].bias.grad)


def test_probes_hold_packed_codes_and_no_values(monkeypatch):
    model, made, given = make(), [], []
    real, product = fk.perturb_quantize_many, fk.probe_matmul

    def perturb(*args, **named):
        made.append(named["form"])
        return real(*args, **named)

    def multiply(x, codes, *rest, **named):
        given.append((x.dtype, codes.bits, codes.shape))
        return product(x, codes, *rest, **named)

    monkeypatch.setattr(fk, "perturb_quantize_many", perturb)
    monkeypatch.setattr(fk, "probe_matmul", multiply)
    FOGZO(model, probe_dtype="int8").backward(loss_of(model), batch=(X, Y))
    assert made == ["packed"]
    assert given == 2 * [(torch.int8, 2, (6, 8)), (torch.int8, 2, (4, 6))]


@pytest.mark.parametrize(
    ("difference", "fraction", "forwards"),
    [("central", 1.0, 9), ("central", 0.5, 9), ("forward", 1.0, 7), ("forward", 0.5, 7)],
)
def test_the_base_forward_of_integers_is_counted(difference, fraction, forwards):
    model, calls = make(), []
    est = FOGZO(model, probes=3, difference=difference, probe_fraction=fraction, probe_dtype="int8")
    loss = loss_of(model)
    est.backward(lambda batch: calls.append(1) or loss(batch), batch=(X, Y))
    assert est.forwards == forwards
    assert len(calls) == forwards - 2  # the backward pass counts as two and calls nothing


def test_a_frozen_weight_is_multiplied_in_integers_too():
    model = make()
    model[0].weight.requires_grad_(False)
    est = FOGZO(model, gamma=0.3, seed=5, difference="forward", probe_dtype="int8")
    est.backward(loss_of(model), batch=(X, Y))
    with torch.no_grad():
        weights = [model[0].quantized_weight(), model[3].quantized_weight()]
        base = loss_with(model, weights, 10)
    assert abs(est.last.losses[0, 1].item() - base) <= LOSS_ERROR
    g = guides_of_last(model)
    pair = fk.perturb_quantize(
        model[3].weight.detach(), g, model[3].scale, model[3].grid, sides="plus", tensor=1,
        seed=5, step=0, gamma=0.3, norm=est.last.norm,
    )  # fmt: skip
    weights[1] = pair[0]
    assert abs(est.last.losses[0, 0].item() - loss_with(model, weights, 10)) <= LOSS_ERROR


def guides_of_last(model: nn.Sequential) -> Tensor:
    return torch.autograd.grad(F.cross_entropy(model(X), Y), [model[3].weight])[0]


def test_weights_that_are_read_as_values_are_named():
    model = make()
    est = FOGZO(model, probe_dtype="int8", everything=True)

    def forward(batch):
        h = torch.tanh(F.linear(batch[0], model[0].quantized_weight(), model[0].bias))
        return F.cross_entropy(model[3](h), batch[1])

    est.backward(forward, batch=(X, Y))
    assert est.last.float_probes == ["0.weight", "0.bias", "3.bias"]
    floats = FOGZO(model)
    floats.backward(forward, batch=(X, Y))
    assert floats.last.float_probes == ["0.weight", "3.weight"]


@pytest.mark.parametrize("probe_dtype", [None, "int8"])
def test_everything_perturbs_float_parameters_by_their_own_noise(probe_dtype):
    """Beside packed weights too: 1e-3 u with the number of each parameter, three roundings."""
    model, seen = make(), []
    model[3].register_forward_pre_hook(lambda m, args: seen.append(m.bias.detach().clone()))
    est = NSPSA(model, everything=True, seed=5, probe_dtype=probe_dtype)
    est.backward(loss_of(model), batch=(X, Y))
    # 0.weight, 3.weight, 0.bias, 3.bias
    u = fk.noise((4,), "identity", seed=5, step=0, tensor=3)
    bias = model[3].bias.detach()
    for values, sign in zip(seen[1:], (1, -1), strict=True):
        error = (values - (bias + sign * 1e-3 * u)).abs()
        assert (error <= 3 * EPS * (bias.abs() + 2e-3)).all()


@pytest.mark.parametrize(("difference", "fraction"), CASES)
def test_random_states_are_those_of_one_forward(difference, fraction):
    model = make(dropout=0.5)
    est = FOGZO(model, difference=difference, probe_fraction=fraction, probe_dtype="int8")
    torch.manual_seed(9)
    F.cross_entropy(model(X), Y)
    after_one = torch.get_rng_state()
    torch.manual_seed(9)
    est.backward(loss_of(model), batch=(X, Y))
    assert torch.equal(torch.get_rng_state(), after_one)


def test_an_error_in_a_probe_leaves_everything_as_it_was():
    model = make(scale="absmax")
    est = FOGZO(model, difference="forward", probe_dtype="int8")
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    calls = []

    def closure(batch):
        calls.append(1)
        if len(calls) == 3:
            raise KeyError("half way")
        return F.cross_entropy(model(batch[0]), batch[1])

    with pytest.raises(KeyError, match="half way"):
        est.backward(closure, batch=(X, Y))
    assert all(p.grad is None for p in model.parameters())
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name
    assert model[0]._probe_weight is None
    est.backward(loss_of(model), batch=(X, Y))


def test_accumulated_steps_and_a_saved_state_continue_bit_for_bit():
    def run(steps: int, est: FOGZO, model: nn.Module) -> None:
        for _ in range(steps):
            est.backward(loss_of(model), batch=(X, Y))

    model = make()
    est = FOGZO(model, accumulate=2, gamma=0.3, probe_dtype="int8")
    run(2, est, model)
    state = est.state_dict()
    assert state["probe_dtype"] == "int8"
    model.zero_grad()
    run(2, est, model)
    other = make()
    resumed = FOGZO(other, accumulate=2, gamma=0.3, probe_dtype="int8")
    resumed.load_state_dict(state)
    run(2, resumed, other)
    assert torch.equal(other[0].weight.grad, model[0].weight.grad)
    with pytest.raises(ValueError, match="probe_dtype is 'int8', expected None as this"):
        FOGZO(other, accumulate=2, gamma=0.3).load_state_dict(state)


@pytest.mark.parametrize("estimator", [FOGZO, NSPSA])
@pytest.mark.parametrize("act_bits", [None, 8])
def test_a_compiled_model_takes_such_probes(estimator, act_bits):
    def train(whole: bool) -> tuple[list[Tensor], list[Tensor]]:
        model, seen = make(act_bits), []
        torch._dynamo.reset()
        run = torch.compile(model, fullgraph=True, backend="aot_eager") if whole else model
        est, optimizer = (
            estimator(model, probes=2, probe_dtype="int8"),
            torch.optim.SGD(model.parameters(), 0.1),
        )
        for step in range(3):
            x = torch.randn(5, 8, generator=torch.Generator().manual_seed(step))
            est.backward(lambda x=x: run(x).square().mean())
            seen.append(est.last.losses)
            optimizer.step()
            optimizer.zero_grad()
        return seen, [p.detach() for p in model.parameters()]

    with torch._dynamo.config.patch(recompile_limit=2):
        (got, w), (want, v) = train(True), train(False)
    for a, b in zip([*got, *w], [*want, *v], strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("value", ["float16", 8, True])
def test_another_dtype_is_refused(value):
    for estimator in (FOGZO, NSPSA):
        text = f"{estimator.__name__}: probe_dtype is {value!r}, expected None or 'int8'"
        with pytest.raises(ValueError, match=text):
            estimator(make(), probe_dtype=value)
