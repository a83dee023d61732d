"""Trainings of small models whose steps are captured, and what a step must leave behind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from helpers import assert_same
from torch import Tensor, nn

import fogzo
import fogzo_kernels as fk
from fogzo import FOGZO, NSPSA, STE, QuantConfig

BEFORE, REPLAYS = 2, 3
GENERATOR = torch.Generator().manual_seed(1)
BATCHES = [
    (torch.randn(12, 8, generator=GENERATOR), torch.randint(4, (12,), generator=GENERATOR))
    for _ in range(BEFORE + 1 + REPLAYS)
]


def net(*middle: nn.Module, **config: Any) -> nn.Module:
    model = nn.Sequential(nn.Linear(8, 16), *middle, nn.Tanh(), nn.Linear(16, 4))
    return fogzo.quantize_(model, QuantConfig(**config))


class Words(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(6, 16, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        return self.words((x.abs() * 2).long().clamp(max=5)).mean(1)


def weights_alone() -> nn.Module:
    """Nothing to back-propagate to, where the quantized weights are perturbed."""
    model = net()
    for layer in (model[0], model[2]):
        layer.bias.requires_grad_(False)
    return model


def pictures() -> nn.Module:
    layers = (nn.Unflatten(1, (1, 2, 4)), nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Flatten())
    return fogzo.quantize_(nn.Sequential(*layers, nn.Linear(32, 4)))


@dataclass
class Case:
    """A model and its estimator; calls: of backward in a step of the optimizer."""

    options: dict[str, Any] = field(default_factory=dict)
    make: Callable[[], nn.Module] = net
    kind: Any = FOGZO
    calls: int = 1
    scaled: bool = False


GAMMA = {"gamma": 0.2, "probes": 2}
CASES = {
    "constant gamma": Case(GAMMA),
    "ramp": Case({**GAMMA, "ramp_steps": 5}),
    "ramp over half the replays, start in them": Case({**GAMMA, "ramp_steps": 5, "start": 4}),
    "accumulate": Case({**GAMMA, "ramp_steps": 6, "accumulate": 2}, calls=2),
    "difference forward": Case({**GAMMA, "difference": "forward"}),
    "int8 probes": Case({**GAMMA, "probe_dtype": "int8"}),
    "int8 probes, forward": Case({**GAMMA, "probe_dtype": "int8", "difference": "forward"}),
    "a part of the batch": Case({**GAMMA, "probe_fraction": 0.5, "difference": "forward"}),
    "batched": Case({**GAMMA, "probes_mode": "batched"}),
    "batched, int8": Case({**GAMMA, "probes_mode": "batched", "probe_dtype": "int8"}),
    "everything": Case({**GAMMA, "everything": True}),
    "rademacher": Case({**GAMMA, "noise": "rademacher"}),
    "a scaler": Case(GAMMA, scaled=True),
    "NSPSA": Case({"probes": 2}, kind=NSPSA),
    "NSPSA, without a backward pass": Case({"probes": 2}, weights_alone, NSPSA),
    "NSPSA of everything": Case({"everything": True}, kind=NSPSA),
    "NSPSA, batched": Case({"probes": 2, "probes_mode": "batched"}, kind=NSPSA),
    "STE": Case(kind=STE),
    "BatchNorm": Case(GAMMA, lambda: net(nn.BatchNorm1d(16))),
    "lsq scales": Case(GAMMA, lambda: net(scale="lsq")),
    "stretched scales": Case(GAMMA, lambda: net(scale="stretched")),
    "absmax scales": Case(GAMMA, lambda: net(scale="absmax")),
    "quest scales": Case(GAMMA, lambda: net(scale="quest")),
    "act_bits": Case(GAMMA, lambda: net(act_bits=8)),
    "an embedding with a padding row": Case(
        GAMMA, lambda: fogzo.quantize_(nn.Sequential(Words(), nn.Linear(16, 4)))
    ),
    "convolutions": Case(GAMMA, pictures),
    "attention": Case(
        GAMMA,
        lambda: net(
            nn.Unflatten(1, (4, 4)),
            nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True),
            nn.Flatten(),
        ),
    ),
}


class Trained:
    """A model in training on one batch's memory, into which each step's batch is copied."""

    def __init__(self, case: Case, capturable: bool, device: str = "cpu") -> None:
        torch.manual_seed(0)
        self.model = case.make().to(device)
        self.est = case.kind(self.model, capturable=capturable, **case.options)
        self.optimizer = torch.optim.SGD(self.model.parameters(), lr=0.1, momentum=0.9)
        self.calls = case.calls
        self.scaler = torch.amp.GradScaler(device, init_scale=256.0) if case.scaled else None
        self.batch = tuple(part.clone().to(device) for part in BATCHES[0])

    def take(self, batch: tuple[Tensor, Tensor]) -> None:
        for mine, new in zip(self.batch, batch, strict=True):
            mine.copy_(new)

    def gradients(self) -> None:
        self.optimizer.zero_grad()
        for _ in range(self.calls):
            self.est.backward(self.loss, batch=self.batch, scaler=self.scaler)

    def step(self) -> None:
        self.gradients()
        if self.scaler is None:
            self.optimizer.step()

    def unscaled(self) -> None:
        """What a scaler's step does is no part of a graph: it reads whether to step."""
        if self.scaler is not None:
            self.scaler.step(self.optimizer)
            self.scaler.update()

    def loss(self, batch: tuple[Tensor, Tensor]) -> Tensor:
        return F.cross_entropy(self.model(batch[0]), batch[1])

    def figures(self) -> dict[str, Any]:
        """What a call leaves behind, as the host reads it."""
        last = self.est.last
        names = ("loss", "losses", "difference", "predicted", "ratio", "resolution")
        found = {name: getattr(last, name) for name in names}
        found |= {"gamma": float(last.gamma), "norm": float(last.norm), "flips": last.flips}
        state = {k: v for k, v in self.est.state_dict().items() if k != "forwards"}
        return found | {"state": state, "model": self.model.state_dict()}


def assert_alike(got: dict[str, Any], want: dict[str, Any], when: str) -> None:
    assert got.keys() == want.keys()
    for name, mine in got.items():
        theirs = want[name]
        if isinstance(mine, dict):
            assert_alike(mine, theirs, f"{name}, {when}")
        elif isinstance(mine, Tensor):
            assert_same(mine, theirs, f"{name}, {when}")
        else:
            assert repr(mine) == repr(theirs), f"{name}, {when}"


def assert_drawn_at(there: Trained, step: int, latent: list[Tensor]) -> None:
    """Flips and G of a call are the reference's at a step; ``latent``: weights before it."""
    est, last = there.est, there.est.last
    guides = [guide.cpu() for guide in last._guided.guides] if last._guided else latent
    norm = float(last.norm) if last._guided else 0.0
    gamma = float(last.gamma)
    named = {"seed": est.seed, "step": step, "gamma": gamma, "norm": norm, "noise": est.noise}
    flips = {}
    columns = zip(est._targets, latent, guides, strict=True)
    for number, (target, w, guide) in enumerate(columns):
        place = (w, guide, target.scale.cpu(), target.grid, target.surrogate)
        of = {**named, "tensor": number}
        with fk.use_backend("reference"):
            codes = fk.perturb_quantize(*place, probes=est.probes, form="codes", **of)
            base = fk.quantize(w, place[2], target.grid)
            G = fk.assemble_gradient(guide, place[2], last.difference.cpu(), place[4], **of)
        flips[target.name] = int((codes != base).sum())
        assert_same(target.weight.grad.cpu(), G, f"G of {target.name} at step {step}")
    assert last.flips == flips
