"""Calls under torch's dispatch modes: they see the registered operations, not memory."""

from __future__ import annotations

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils._python_dispatch import TorchDispatchMode

import fogzo
import fogzo_kernels as fk

GRID = fk.Grid("mid-rise", 2)


def small() -> torch.nn.Module:
    torch.manual_seed(0)
    return fogzo.quantize_(torch.nn.Sequential(torch.nn.Linear(6, 5), torch.nn.Linear(5, 4)))


def test_a_traced_operation_reads_its_input():
    scale = torch.ones(())
    traced = make_fx(lambda w: fk.fake_quantize(w, scale, GRID))(torch.zeros(3, 4))
    w = torch.linspace(-2, 2, 12).view(3, 4)
    assert torch.equal(traced(w), fk.fake_quantize(w, scale, GRID))


def test_a_traced_model_takes_other_parameters():
    model, x = small(), torch.randn(7, 6)
    first = dict(model.named_parameters())
    traced = make_fx(lambda given, x: functional_call(model, given, (x,)))(first, x)
    others = {name: 3 * value.detach() for name, value in first.items()}
    assert torch.equal(traced(others, x), functional_call(model, others, (x,)))


@pytest.mark.parametrize("train", [False, True])
def test_fake_tensors(train):
    model = small()
    with FakeTensorMode(allow_non_fake_inputs=True):
        out = model(torch.randn(7, 6))
        if train:
            out.sum().backward()
            assert model[0].weight.grad.shape == (5, 6)
    assert out.shape == (7, 4)


def test_a_mode_sees_every_operation_of_a_step():
    class Seen(TorchDispatchMode):
        def __init__(self):
            super().__init__()
            self.names = set()

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            self.names.add(function.name().removeprefix("fogzo::"))
            return function(*args, **kwargs or {})

    model, x = small(), torch.randn(7, 6)
    steps = []
    for seen in (None, Seen()):
        for parameter in model.parameters():
            parameter.grad = None
        estimator = fogzo.FOGZO(model, seed=3)
        if seen is None:
            estimator.backward(lambda: model(x).square().mean())
        else:
            with seen:
                estimator.backward(lambda: model(x).square().mean())
            needed = {"whitened_norm", "perturb_quantize_many", "probe_matmul"}
            assert needed <= seen.names
        steps.append([parameter.grad.clone() for parameter in model.parameters()])
    for plain, moded in zip(*steps, strict=True):
        assert torch.equal(plain, moded)
