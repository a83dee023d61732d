"""What people train with: models, closures and loops, each by the name of a row."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
import torch.nn.functional as F
from recorder import Recorder
from torch import Tensor, nn
from torch.distributed.fsdp import FullyShardedDataParallel, fully_shard
from torch.nn.parallel import DistributedDataParallel
from torch.utils.checkpoint import checkpoint

import fogzo
from fogzo import QuantConfig

Batch = tuple[Tensor, Tensor]
GENERATOR = torch.Generator().manual_seed(1)
X, Y = torch.randn(12, 8, generator=GENERATOR), torch.arange(12) % 4


def cross_entropy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0]).float(), batch[1])


def net(*middle: nn.Module, config: QuantConfig | None = None) -> nn.Sequential:
    """8 -> 16 -> 4, with something in the middle."""
    model = nn.Sequential(nn.Linear(8, 16), *middle, nn.Tanh(), nn.Linear(16, 4))
    return fogzo.quantize_(model, config)


@dataclass
class Feature:
    """A row: how its model is made, run and trained.

    Attributes:
        make: the quantized model. loss: of a model and a batch, the closure's work.
        running: what the closure calls, given the model; wraps: the estimator gets that too.
        refused: what the error says, where the estimator takes no such model.
        half: whether the losses are those of half-precision products.
    """

    make: Callable[[], nn.Module]
    loss: Callable[[nn.Module, Batch], Tensor] = cross_entropy
    running: Callable[[nn.Module], Any] = lambda model: model
    wraps: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    refused: str | None = None
    half: bool = False

    def batch(self, fraction: float | None = None) -> Batch:
        rows = len(X) if fraction is None else int(fraction * len(X))
        return X[:rows], Y[:rows]

    def backward(self, est: Any, run: Any) -> None:
        est.backward(lambda batch: self.loss(run, batch), batch=self.batch())

    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()

    def gradient(self, plain: Tensor) -> Tensor:
        """Of a parameter that nothing perturbs, given plain back-propagation's."""
        return plain


class Scaled(Feature):
    """GradScaler: scaled gradients, unscaled by its step()."""

    FACTOR = 1024.0

    def backward(self, est: Any, run: Any) -> None:
        self.scaler = torch.amp.GradScaler("cpu", init_scale=self.FACTOR)
        est.backward(lambda batch: self.loss(run, batch), batch=self.batch(), scaler=self.scaler)

    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        self.scaler.step(optimizer)
        self.scaler.update()

    def gradient(self, plain: Tensor) -> Tensor:
        return plain * self.FACTOR


class Accumulated(Feature):
    """Two calls a step: their gradients add up."""

    def backward(self, est: Any, run: Any) -> None:
        state = torch.get_rng_state()
        for _ in range(2):  # the same masks, so that the sum is twice one
            torch.set_rng_state(state)
            super().backward(est, run)

    def gradient(self, plain: Tensor) -> Tensor:
        return 2 * plain


class Clipped(Feature):
    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        norm = nn.utils.clip_grad_norm_(model.parameters(), 0.1)
        assert norm.isfinite()
        total = torch.stack([p.grad.norm() for p in model.parameters() if p.grad is not None])
        assert total.norm() <= 0.1 * (1 + 1e-4)
        optimizer.step()


class Scheduled(Feature):
    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 4)
        optimizer.step()
        scheduler.step()


class Averaged(Feature):
    """An average of the weights beside the model, and a copy of model and estimator together."""

    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        average = torch.optim.swa_utils.AveragedModel(model)
        optimizer.step()
        average.update_parameters(model)
        twin, other = copy.deepcopy((model, est))
        state = torch.get_rng_state()
        other.backward(lambda batch: self.loss(twin, batch), batch=self.batch())
        torch.set_rng_state(state)
        for p, q in zip(model.parameters(), twin.parameters(), strict=True):
            assert torch.equal(p, q)
        assert all(torch.isfinite(p).all() for p in average.parameters())


class Resumed(Feature):
    def update(self, est: Any, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.step()
        state = copy.deepcopy(est.state_dict())
        est.load_state_dict(state)


class Replayed(Feature):
    """The second step is a replay of one recorded after the first."""

    def backward(self, est: Any, run: Any) -> None:
        if est.last is None:
            super().backward(est, run)
            run.zero_grad()
            self.recorder = Recorder()
            with self.recorder:
                super().backward(est, run)
            self.grads = [p.grad for p in run.parameters()]
        else:
            self.recorder.replay()
            for p, grad in zip(run.parameters(), self.grads, strict=True):
                p.grad = grad


class DropPath(nn.Module):
    """Whole examples of a residual branch are dropped."""

    def __init__(self, branch: nn.Module) -> None:
        super().__init__()
        self.branch = branch

    def forward(self, x: Tensor) -> Tensor:
        keep = x.new_empty(x.shape[0], *[1] * (x.dim() - 1)).bernoulli_(0.7)
        return x + self.branch(x) * keep / 0.7


class Checkpointed(nn.Module):
    def __init__(self, reentrant: bool) -> None:
        super().__init__()
        self.reentrant = reentrant
        self.body = nn.Sequential(nn.Linear(16, 16), nn.Dropout(0.3), nn.GELU())

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = checkpoint(self.body, x, use_reentrant=self.reentrant)
        return y


class Branch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 2 if x.mean() > 0 else x


class Remembers(nn.Module):
    """Writes an average of what it sees into a buffer of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(16))

    def forward(self, x: Tensor) -> Tensor:
        self.mean.lerp_(x.detach().mean(0), 0.1)
        return x


class Counts(nn.Module):
    """A buffer that the forward reads and replaces, as a step counter is."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        return x / self.count


def evaluating_norm() -> nn.Module:
    model = net(nn.BatchNorm1d(16))
    model[1].eval()
    return model


def frozen(*names: str) -> Callable[[], nn.Module]:
    def make() -> nn.Module:
        model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 4))
        fogzo.quantize_(model)
        for name in names:
            model.get_parameter(name).requires_grad_(False)
        return model

    return make


def tied() -> nn.Module:
    model = nn.Sequential(
        nn.Linear(8, 16), nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 4)
    )
    model[3].weight = model[1].weight
    return fogzo.quantize_(model)


class Attention(nn.Module):
    """nn.TransformerEncoderLayer over the rows as sequences of two."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(16, 2, 16, dropout=0.2, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layer(x.view(-1, 2, 16))
        return y.reshape(len(x), 16)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.cell = nn.GRU(16, 16, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.cell(x[:, None])[0][:, 0]


def autocast(model: nn.Module, batch: Batch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        out = model(batch[0])
    return F.cross_entropy(out.float(), batch[1])


def all_in_autocast(model: nn.Module, batch: Batch) -> Tensor:
    with torch.autocast("cpu", torch.bfloat16):
        return F.cross_entropy(model(batch[0]), batch[1], label_smoothing=0.1)


def several(model: nn.Module, batch: Batch) -> Tensor:
    """A task, a penalty on activations, one on float weights."""
    hidden = model[0](batch[0])
    penalty = hidden.square().mean() + model[-1].bias.square().sum()
    return F.cross_entropy(model[1:](hidden), batch[1]) + 0.1 * penalty


def mixup(model: nn.Module, batch: Batch) -> Tensor:
    x, y = batch
    weight, order = torch.rand(()), torch.randperm(len(x))
    out = model(weight * x + (1 - weight) * x[order])
    return weight * F.cross_entropy(out, y) + (1 - weight) * F.cross_entropy(out, y[order])


def noisy(model: nn.Module, batch: Batch) -> Tensor:
    return F.cross_entropy(model(batch[0] + 0.1 * torch.randn_like(batch[0])), batch[1])


def compiled(model: nn.Module) -> Any:
    torch._dynamo.reset()
    return torch.compile(model, backend="eager")


def sharded() -> nn.Module:
    model = net()
    fully_shard(model)
    return model


def flat() -> nn.Module:
    return FullyShardedDataParallel(net(), device_id=torch.device("cpu"), use_orig_params=True)


def hooked() -> nn.Module:
    model = net(nn.Identity())
    model[1].register_forward_hook(lambda module, args, out: out * 1.5)
    return model


def scripted() -> nn.Module:
    part = nn.Sequential(nn.BatchNorm1d(16), nn.Linear(16, 16), nn.Tanh())
    return net(torch.jit.script(part))


class Images(nn.Module):
    """The 8 features as a picture of 2 x 4."""

    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), 1, 2, 4)


def convolutions() -> nn.Module:
    model = nn.Sequential(
        Images(), nn.Conv2d(1, 4, 3, padding=1), nn.GELU(), nn.Conv2d(4, 4, 2), nn.Flatten(),
        nn.Linear(12, 4),
    )  # fmt: skip
    return fogzo.quantize_(model)


class Words(nn.Module):
    """A sentence of 8 words in place of the features."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(6, 16, padding_idx=0)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.words((x.abs() * 2).long().clamp(max=5)).mean(1)
        return y


def embeddings() -> nn.Module:
    return fogzo.quantize_(nn.Sequential(Words(), nn.Linear(16, 4)))


def with_config(**options: Any) -> Callable[[], nn.Module]:
    return lambda: net(nn.LayerNorm(16), config=QuantConfig(**options))


FEATURES: dict[str, Feature] = {
    "dropout": Feature(lambda: net(nn.Dropout(0.4))),
    "drop path": Feature(lambda: net(DropPath(nn.Linear(16, 16)))),
    "noise drawn in the closure": Feature(net, noisy),
    "mixup in the closure": Feature(net, mixup),
    "several losses": Feature(lambda: net(nn.Dropout(0.2)), several),
    "LayerNorm": Feature(lambda: net(nn.LayerNorm(16))),
    "BatchNorm in train mode": Feature(lambda: net(nn.BatchNorm1d(16))),
    "BatchNorm in eval mode": Feature(evaluating_norm),
    "a buffer that forwards replace": Feature(lambda: net(Counts())),
    "a buffer that forwards write into": Feature(lambda: net(Remembers())),
    "TransformerEncoderLayer": Feature(lambda: net(Attention())),
    "GRU": Feature(lambda: net(Recurrent())),
    "checkpoint, non-reentrant": Feature(lambda: net(Checkpointed(False))),
    "checkpoint, reentrant": Feature(lambda: net(Checkpointed(True))),
    "forward hooks": Feature(hooked),
    "control flow by values": Feature(lambda: net(Branch())),
    "frozen float parameters": Feature(frozen("0.bias", "2.bias")),
    "frozen quantized weight": Feature(frozen("0.weight", "2.weight")),
    "tied weights": Feature(tied),
    "sign weights, absmean scales": Feature(with_config(grid="sign", scale="absmean")),
    "4 bits, groups, absmax scales": Feature(
        with_config(grid="mid-tread", bits=4, scale="absmax", granularity="group", group_size=8)
    ),
    "lsq scales": Feature(with_config(scale="lsq")),
    "stretched scales": Feature(with_config(scale="stretched")),
    "quest scales, rotated weights": Feature(with_config(scale="quest")),
    "QuantConv2d": Feature(convolutions),
    "QuantEmbedding": Feature(embeddings),
    "8-bit activations (act_bits)": Feature(with_config(act_bits=8)),
    "rademacher noise": Feature(net, options={"noise": "rademacher"}),
    "autocast, bfloat16": Feature(net, autocast, half=True),
    "autocast, the loss inside": Feature(lambda: net(Attention()), all_in_autocast, half=True),
    "GradScaler": Scaled(net),
    "accumulation over calls": Accumulated(lambda: net(nn.Dropout(0.2)), options={"accumulate": 2}),
    "gradient clipping": Clipped(net),
    "learning-rate schedulers": Scheduled(net),
    "AveragedModel, deepcopy": Averaged(lambda: net(nn.Dropout(0.2))),
    "state_dict and resume": Resumed(net),
    "torch.compile": Feature(net, running=compiled),
    "captured step, replayed": Replayed(
        lambda: net(nn.LayerNorm(16)), options={"capturable": True}
    ),
    "a torch.jit.ScriptModule inside": Feature(scripted),
    "DistributedDataParallel": Feature(
        lambda: net(nn.Dropout(0.2)),
        # NSPSA's quantized weights are constants to back-propagation
        running=lambda model: DistributedDataParallel(model, find_unused_parameters=True),
        wraps=True,
    ),
    "FSDP2 (fully_shard)": Feature(sharded, refused="is a DTensor, sharded over processes"),
    "FSDP1 (FullyShardedDataParallel)": Feature(
        flat, refused="holds a FullyShardedDataParallel, whose weights are parts of one flat tensor"
    ),
    "nn.DataParallel": Feature(
        lambda: nn.DataParallel(net()),
        refused="holds an nn.DataParallel, whose threads share no random state",
    ),
}
