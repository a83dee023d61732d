"""Probes multiply by packed codes where a kernel takes them, and by values where more is asked."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from helpers import multiply
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, QuantConfig

X, Y = torch.randn(6, 5, 8, generator=torch.Generator().manual_seed(1)), torch.arange(30) % 4

needs_kernel = pytest.mark.skipif(
    not fk.has_kernel("probe_matmul"), reason="probe_matmul has no kernel here"
)


def make(bias: bool = True) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(8, 6, bias=bias), nn.Tanh(), nn.Linear(6, 4, bias=bias))
    fogzo.quantize_(model, QuantConfig(bits=2))
    return model


def loss_of(model: nn.Module, x: Tensor = X) -> Tensor:
    return F.cross_entropy(model(x).reshape(-1, 4).float(), Y)


def of_values(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fk, "has_kernel", lambda op, device="cpu": False)


@needs_kernel
@pytest.mark.parametrize("bias", [True, False])
def test_inputs_of_any_number_of_dimensions(bias, monkeypatch):
    model, seen = make(bias), []

    def closure() -> Tensor:
        if not torch.is_grad_enabled():
            for x in (X, X.view(30, 8), X[0, 0], X[:0]):
                got = model[0](x)
                rows = x.reshape(-1, 8)
                want = multiply(rows, model[0].quantized_weight(), model[0])
                seen.append(torch.equal(got, want.view(*x.shape[:-1], 6)))
        return loss_of(model)

    FOGZO(model).backward(closure)
    assert seen == [True] * 8


@needs_kernel
def test_packed_codes_stand_for_the_weights():
    model, seen = make(), []

    def closure() -> Tensor:
        seen.append(model[0]._probe_weight)
        return loss_of(model)

    FOGZO(model).backward(closure)
    assert seen[0] is None
    of_codes = [(fk.Packed, 2, False)] * 2
    assert [(type(g.codes), g.codes.bits, g.as_values) for g in seen[1:]] == of_codes
    for options, backend in (({}, "reference"), ({"difference": "forward"}, "auto")):
        seen.clear()
        with fk.use_backend(backend):
            FOGZO(model, **options).backward(closure)
        assert {(type(given.codes), given.as_values) for given in seen[1:]} == {(fk.Packed, True)}


def test_autocast_multiplies_values(monkeypatch):
    def losses() -> list[list[float]]:
        model = make()
        est = FOGZO(model, gamma=0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            est.backward(lambda: loss_of(model))
        return est.last.losses.tolist()

    got = losses()
    of_values(monkeypatch)
    assert got == losses()


def test_a_closure_may_differentiate_a_probe(monkeypatch):
    def losses() -> list[list[float]]:
        model = make()
        est = FOGZO(model, gamma=0.5)

        def closure() -> Tensor:
            with torch.enable_grad():
                x = X.clone().requires_grad_()
                loss = loss_of(model, x)
                (slope,) = torch.autograd.grad(loss, x, create_graph=True)
                return loss + slope.square().sum()

        est.backward(closure)
        return est.last.losses.tolist()

    got = losses()
    of_values(monkeypatch)
    assert got == losses()


@pytest.mark.parametrize("difference", ["central", "forward"])
def test_where_no_code_flips_the_difference_is_zero(difference):
    """The same products on both sides of a difference, to the last bit."""
    model = make()
    with torch.no_grad():
        for layer in (model[0], model[2]):
            layer.weight.copy_(layer.quantized_weight())  # the middle of every basin
    est = FOGZO(model, gamma=1e-4, difference=difference)
    est.backward(lambda: loss_of(model))
    assert sum(est.last.flips.values()) == 0
    assert est.last.difference.tolist() == [0.0]


def test_a_compiled_model_takes_them_too():
    model = make()
    compiled = torch.compile(copy.deepcopy(model), backend="eager", fullgraph=True)
    plain, other = FOGZO(model, gamma=0.5), FOGZO(compiled, gamma=0.5)
    for _ in range(2):
        plain.backward(lambda: loss_of(model))
        other.backward(lambda: loss_of(compiled))
        assert plain.last.losses.tolist() == other.last.losses.tolist()
