"""Every quantizer with every layer: trained, saved and resumed, copied, compiled, autocast."""

from __future__ import annotations

import copy
import io

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import QuantConfig

CONFIGS = {
    "lsq tensor": QuantConfig(bits=2, scale="lsq", granularity="tensor"),
    "lsq channel, 4 bits in": QuantConfig(bits=4, scale="lsq", act_bits=4),
    "lsq group": QuantConfig(grid="ternary", scale="lsq", granularity="group", group_size=4),
    "lsq sign, 1 bit in": QuantConfig(grid="sign", scale="lsq", act_bits=1),
    "quest": QuantConfig(bits=2, scale="quest"),
    "quest, 8 bits in": QuantConfig(bits=4, scale="quest", act_bits=8),
    "stretched": QuantConfig(bits=2, scale="stretched"),
    "stretched, 2 bits in": QuantConfig(bits=4, scale="stretched", act_bits=2),
    "fixed": QuantConfig(bits=2),
}
FEW = ["lsq channel, 4 bits in", "quest", "stretched", "fixed"]
ESTIMATORS = {
    "ste": lambda model: fogzo.STE(model),
    "fogzo": lambda model: fogzo.FOGZO(model, probes=2, seed=3),
    "n-spsa": lambda model: fogzo.NSPSA(model, probes=2, seed=3),
}


class Net(nn.Module):
    """Each kind of layer once: [B, 6] of 12 tokens -> [B, 3]."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.conv1d = nn.Conv1d(8, 8, 3, padding=1)
        self.conv2d = nn.Conv2d(1, 4, (3, 4), stride=2, bias=False)
        self.head = nn.Linear(4 * 3 * 2, 3)

    def forward(self, ids: Tensor) -> Tensor:
        x = F.relu(self.conv1d(self.embedding(ids).transpose(1, 2)))
        return self.head(F.relu(self.conv2d(x[:, None])).flatten(1))


def net(config: QuantConfig) -> nn.Module:
    torch.manual_seed(0)
    return fogzo.quantize_(Net(), config)


GENERATOR = torch.Generator().manual_seed(1)
IDS = torch.randint(0, 12, (32, 6), generator=GENERATOR)
LABELS = IDS[:, 0] % 3


class Run:
    """A model, its optimizer and its estimator."""

    def __init__(self, config: QuantConfig, estimator: str) -> None:
        self.model = net(config)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=0.02)
        self.estimator = ESTIMATORS[estimator](self.model)

    def steps(self, n: int) -> list[float]:
        losses = []
        for _ in range(n):
            loss = self.estimator.backward(lambda: F.cross_entropy(self.model(IDS), LABELS))
            self.optimizer.step()
            self.optimizer.zero_grad()
            losses.append(loss.item())
        return losses

    def state(self) -> dict:
        parts = (self.model, self.optimizer, self.estimator)
        buffer = io.BytesIO()
        torch.save([part.state_dict() for part in parts], buffer)
        buffer.seek(0)
        return torch.load(buffer)

    def load(self, state: list) -> None:
        for part, saved in zip((self.model, self.optimizer, self.estimator), state, strict=True):
            part.load_state_dict(saved)


@pytest.mark.parametrize(
    ("name", "estimator"),
    [(n, e) for n in CONFIGS for e in ESTIMATORS if e != "n-spsa" or n in FEW],
)
def test_it_trains_and_a_resumed_run_goes_on_bit_for_bit(name, estimator):
    run = Run(CONFIGS[name], estimator)
    begin = {n: p.detach().clone() for n, p in run.model.named_parameters()}
    assert run.estimator.backward(lambda: F.cross_entropy(run.model(IDS), LABELS)).isfinite()
    for n, parameter in run.model.named_parameters():
        assert parameter.grad is not None, n
        assert parameter.grad.isfinite().all(), n
        assert parameter.grad.any(), n
    run = Run(CONFIGS[name], estimator)
    losses = run.steps(3)
    resumed = Run(CONFIGS[name], estimator)
    resumed.load(run.state())
    losses += run.steps(2)
    assert resumed.steps(2) == losses[3:]
    for (n, p), q in zip(run.model.named_parameters(), resumed.model.parameters(), strict=True):
        assert torch.equal(p, q), n
        assert not torch.equal(p, begin[n]), n
    if estimator != "n-spsa":
        assert run.steps(12)[-1] < losses[0]


@pytest.mark.parametrize("name", FEW)
def test_a_copy_of_model_and_estimator_goes_on_alike(name):
    run = Run(CONFIGS[name], "fogzo")
    run.steps(2)
    other = copy.deepcopy(run)
    assert other.steps(2) == run.steps(2)
    learned = other.model.head.config.learned
    if learned is not None:
        assert other.model.head._parameters[learned] is not run.model.head._parameters[learned]


def test_a_net_of_all_rules_compiles_whole():
    torch.manual_seed(0)
    rules = {
        "embedding": CONFIGS["lsq tensor"],
        "conv1d": CONFIGS["quest"],
        "conv2d": CONFIGS["stretched, 2 bits in"],
        "head": CONFIGS["quest, 8 bits in"],
    }
    model = fogzo.quantize_(Net(), overrides=rules)
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    seen = []
    for forward in (model, compiled):
        model.zero_grad()
        y = forward(IDS)
        F.cross_entropy(y, LABELS).backward()
        seen.append([y.detach(), *(p.grad for p in model.parameters())])
    for got, want in zip(*seen, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-5, atol=1e-6)
    # a probe stands in for the weights of the compiled model too
    est = fogzo.FOGZO(model, gamma=0.1)
    est.backward(lambda: F.cross_entropy(compiled(IDS), LABELS))
    assert all(n > 0 for n in est.last.flips.values())


@pytest.mark.parametrize("name", FEW)
def test_autocast_gives_its_dtype_and_float32_gradients(name):
    model = net(CONFIGS[name])
    exact = model(IDS).detach()
    est = fogzo.FOGZO(model, gamma=0.1)

    def loss() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            y = model(IDS)
        assert y.dtype is torch.bfloat16
        return F.cross_entropy(y.float(), LABELS)

    with torch.no_grad(), torch.autocast("cpu", dtype=torch.bfloat16):
        got = model(IDS).float()
    # three products of factors rounded to 8 bits; integers round the activations anew
    slack = 2.0**-4 if CONFIGS[name].act_bits is None else 2.0**-2
    assert (got - exact).abs().max() <= slack * exact.abs().max()
    est.backward(loss)
    assert est.last.difference.isfinite().all()
    for n, parameter in model.named_parameters():
        assert parameter.grad.dtype is torch.float32, n
        assert parameter.grad.isfinite().all(), n


def test_a_bfloat16_input_without_autocast_is_refused_where_it_is_rotated():
    layer = fogzo.QuantLinear(8, 4, config=CONFIGS["quest"])
    with pytest.raises(TypeError, match="QuantLinear: x has dtype bfloat16, expected float32, or"):
        layer(torch.zeros(2, 8, dtype=torch.bfloat16))
