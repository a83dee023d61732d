"""Batched probes under autocast: its rules, function by function, before torch.vmap has them."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import fogzo
from fogzo import FOGZO, NSPSA, QuantConfig
from fogzo.estimators import _autocast
from fogzo.estimators._autocast import float32_functions
from fogzo.estimators._mapping import Mapping

EPS = torch.finfo(torch.float32).eps
GENERATOR = torch.Generator().manual_seed(1)
SIDES = 3
# each side's: what the rules meet is a tensor that torch.vmap maps
MAPPED = torch.randn(SIDES, 6, 4, 4, generator=GENERATOR)
OTHER = torch.randn(6, 4, 4, generator=GENERATOR)
W, B = torch.randn(4, 4, generator=GENERATOR), torch.randn(4, generator=GENERATOR)
KERNEL = torch.randn(6, 6, 3, 3, generator=GENERATOR)
ONES, LABELS, SIGNS = torch.ones(6), torch.arange(6) % 4, torch.tensor([1, -1, 1, -1, 1, 1])


def rows(x: Tensor) -> Tensor:
    return x[:, 0]


Function = Callable[[Tensor], Tensor]
FUNCTIONS: dict[str, Function] = {
    "linear": lambda x: F.linear(x, W, B),
    "matmul": lambda x: x @ W,
    "rmatmul": lambda x: W @ x,
    "bmm": lambda x: torch.bmm(x, OTHER),
    "baddbmm": lambda x: torch.baddbmm(OTHER, x, OTHER),
    "addmm": lambda x: torch.addmm(B, x[0], W),
    "einsum": lambda x: torch.einsum("bij,jk->bik", x, W),
    "conv1d": lambda x: F.conv1d(x, KERNEL[:, :4, :, 0], B.repeat(2)[:6]),
    "conv2d": lambda x: F.conv2d(x, KERNEL, padding="same"),
    "conv_transpose2d": lambda x: F.conv_transpose2d(x, KERNEL),
    "prelu": lambda x: F.prelu(x, B[:1]),
    "attention": lambda x: F.scaled_dot_product_attention(x, x, OTHER),
    "cat": lambda x: torch.cat([x.bfloat16(), OTHER]),
    "stack": lambda x: torch.stack([x.bfloat16(), OTHER]),
    "cross_entropy": lambda x: F.cross_entropy(rows(x).bfloat16(), LABELS),
    "label smoothing": lambda x: F.cross_entropy(rows(x).bfloat16(), LABELS, label_smoothing=0.1),
    "probabilities": lambda x: F.cross_entropy(rows(x).bfloat16(), rows(OTHER).softmax(1)),
    "nll_loss": lambda x: F.nll_loss(F.log_softmax(rows(x).bfloat16(), 1), LABELS),
    "nll_loss2d": lambda x: F.nll_loss(
        x.transpose(0, 1)[None].bfloat16(), LABELS.repeat(4).view(1, 6, 4)
    ),
    "mse_loss": lambda x: F.mse_loss(x.bfloat16(), OTHER),
    "l1_loss": lambda x: F.l1_loss(x.bfloat16(), OTHER),
    "smooth_l1_loss": lambda x: F.smooth_l1_loss(x.bfloat16(), OTHER),
    "huber_loss": lambda x: F.huber_loss(x.bfloat16(), OTHER),
    "kl_div": lambda x: F.kl_div(
        F.log_softmax(x.bfloat16(), 1), OTHER.softmax(1), reduction="sum"
    ),
    "binary_cross_entropy": lambda x: F.binary_cross_entropy(
        x.bfloat16().sigmoid(), OTHER.sigmoid()
    ),
    "with_logits": lambda x: F.binary_cross_entropy_with_logits(x.bfloat16(), OTHER.sigmoid()),
    "poisson_nll_loss": lambda x: F.poisson_nll_loss(x.bfloat16(), OTHER.abs()),
    "soft_margin_loss": lambda x: F.soft_margin_loss(x[:, 0, 0].bfloat16(), SIGNS),
    "hinge_embedding_loss": lambda x: F.hinge_embedding_loss(x[:, 0, 0].bfloat16(), SIGNS),
    "cosine_embedding_loss": lambda x: F.cosine_embedding_loss(
        rows(x).bfloat16(), rows(OTHER), SIGNS
    ),
    "margin_ranking_loss": lambda x: F.margin_ranking_loss(
        x[:, 0, 0].bfloat16(), OTHER[:, 0, 0], SIGNS
    ),
    "triplet_margin_loss": lambda x: F.triplet_margin_loss(
        rows(x).bfloat16(), rows(OTHER), rows(OTHER).flip(0)
    ),
    "triplet with a distance": lambda x: F.triplet_margin_with_distance_loss(
        rows(x).bfloat16(), rows(OTHER), rows(OTHER).flip(0)
    ),
    "multi_margin_loss": lambda x: F.multi_margin_loss(rows(x).bfloat16(), LABELS),
    "reflection pad": lambda x: F.pad(x.bfloat16(), (1, 1), mode="reflect"),
    "prod": lambda x: x.bfloat16().prod(),
    "grid_sample": lambda x: F.grid_sample(
        x[None].bfloat16(), OTHER.view(1, 8, 6, 2).tanh(), align_corners=False
    ),
    "batch_norm": lambda x: F.batch_norm(x.bfloat16(), None, None, ONES[:4], B, True),
    "eval batch_norm": lambda x: F.batch_norm(x.bfloat16(), B, B.abs(), ONES[:4], B),
    "group_norm": lambda x: F.group_norm(x.bfloat16(), 2, ONES[:4], B),
    "instance_norm": lambda x: F.instance_norm(x.bfloat16(), None, None, ONES[:4], B, True),
    "layer_norm": lambda x: F.layer_norm(x.bfloat16(), (4,), ONES[:4], B),
    "double": lambda x: x.double() @ W.double(),
    "multihead attention": lambda x: F.multi_head_attention_forward(
        x, x, x, 4, 2, W.repeat(3, 1), B.repeat(3), None, None, False, 0.0, W, B
    )[0],
}


def under_autocast(of: Function, dtype: torch.dtype = torch.bfloat16) -> Function:
    def inside(x: Tensor) -> Tensor:
        with torch.autocast("cpu", dtype):
            return of(x)

    return inside


@pytest.mark.parametrize("name", FUNCTIONS)
@torch.no_grad()
def test_a_mapped_function_follows_autocasts_rule(name):
    of = under_autocast(FUNCTIONS[name])
    want = torch.stack([of(x) for x in MAPPED])
    with Mapping("cpu"), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*performance drop")
        got = torch.vmap(of)(MAPPED)
    assert got.dtype == want.dtype
    # sums of at most 96 terms, in another order; halves are rounded once more where addmm and
    # baddbmm are a product and a sum
    error = (4 if want.dtype is torch.bfloat16 else 96) * torch.finfo(want.dtype).eps
    assert (got - want).abs().max() <= error * want.abs().max()


@torch.no_grad()
def test_without_the_rules_a_loss_would_be_a_half():
    """The reason for them; where torch.vmap comes to do this itself they can go."""
    of = under_autocast(FUNCTIONS["cross_entropy"])
    assert of(MAPPED[0]).dtype is torch.float32
    assert torch.vmap(of)(MAPPED).dtype is torch.bfloat16


@torch.no_grad()
def test_they_do_nothing_where_autocast_is_off():
    def of(x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16), torch.autocast("cpu", enabled=False):
            return F.mse_loss(x.bfloat16() @ W.bfloat16(), OTHER.bfloat16())

    with Mapping("cpu"):
        assert of(MAPPED[0]).dtype is torch.bfloat16
        assert F.linear(OTHER, W).dtype is torch.float32
        with torch.autocast("cpu", torch.float16):
            assert F.linear(OTHER, W).dtype is torch.float16
            assert F.linear(OTHER.double(), W.double()).dtype is torch.float64


def of_header(name: str) -> set[str]:
    """Operations of a list of autocast's in torch's headers: those of GPUs."""
    header = Path(torch.__file__).parent / "include/ATen/autocast_mode.h"
    found = re.search(rf"define AT_FORALL_{name}\(_\)(.*?)\n\n", header.read_text(), re.DOTALL)
    assert found is not None
    return set(re.findall(r"_\((?:ADD_NS\()?(\w+)", found[1]))


def test_the_lists_are_torchs_own():
    """Each operation with a kernel of autocast's has the rule of the list that torch has it in."""
    assert of_header("LOWER_PRECISION_FP") <= _autocast.LOWER
    assert of_header("PROMOTE") - _autocast.LEFT <= _autocast.WIDEST
    wide = of_header("FP32") | of_header("FP32_SET_OPT_DTYPE")
    wide |= of_header("DIFFERENT_REDISPATCH_SIGNATURE")
    assert len(wide) > 60
    assert wide <= float32_functions("cuda")
    # on CPUs torch names these in its documentation alone
    documented = (
        "avg_pool3d binary_cross_entropy grid_sampler_2d grid_sampler_3d polar prod quantile "
        "nanquantile stft cdist trace view_as_complex cholesky cholesky_inverse cholesky_solve "
        "inverse lu_solve orgqr ormqr pinverse max_pool3d max_unpool2d max_unpool3d "
        "adaptive_avg_pool3d reflection_pad1d reflection_pad2d replication_pad1d replication_pad2d "
        "replication_pad3d mse_loss cosine_embedding_loss nll_loss nll_loss2d hinge_embedding_loss "
        "poisson_nll_loss smooth_l1_loss cross_entropy_loss l1_loss huber_loss margin_ranking_loss "
        "soft_margin_loss triplet_margin_loss multi_margin_loss ctc_loss kl_div "
        "multilabel_margin_loss binary_cross_entropy_with_logits fft_fft fft_ifft linalg_cond"
    )
    assert set(documented.split()) <= float32_functions("cpu")
    for known in ("linear", "conv2d", "stack", "grid_sampler", "softmax", "layer_norm"):
        assert known not in float32_functions("cpu")


class Picture(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.view(len(x), 1, 4, 4)


class Sequence(nn.Module):
    """Attention in train mode over the 4 places of the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.TransformerEncoderLayer(8, 2, 8, dropout=0.1, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.layer(x.flatten(2).transpose(1, 2)).mean(1)


X, Y = torch.randn(12, 16, generator=GENERATOR), torch.arange(12) % 4


def make(act_bits: int | None = None) -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(
        Picture(), nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.PReLU(),
        nn.Conv2d(8, 8, 2, stride=2), nn.GroupNorm(2, 8), Sequence(), nn.LayerNorm(8),
        nn.Linear(8, 4),
    )  # fmt: skip
    return fogzo.quantize_(model, QuantConfig(act_bits=act_bits))


def cross_entropy(model: nn.Module) -> Tensor:
    return F.cross_entropy(model(X), Y, label_smoothing=0.1)


def several(model: nn.Module) -> Tensor:
    out = model(X)
    wanted = F.one_hot(Y, 4).to(out.dtype)
    return F.mse_loss(out, wanted) + 0.1 * F.nll_loss(F.log_softmax(out, 1), Y)


def losses_of(
    kind: Any,
    loss: Callable[[nn.Module], Tensor],
    act_bits: int | None,
    dtype: torch.dtype | None,
    outside: bool = False,
    **options: Any,
) -> tuple[Tensor, Any]:
    """The losses of two probes of a new model, and the estimator."""
    model = make(act_bits)
    est = kind(model, probes=2, seed=7, **options)
    enabled = dtype is not None

    def closure() -> Tensor:
        with torch.autocast("cpu", dtype, enabled=enabled and not outside):
            return loss(model)

    torch.manual_seed(1)
    with warnings.catch_warnings(), torch.autocast("cpu", dtype, enabled=enabled and outside):
        warnings.simplefilter("error", UserWarning)
        warnings.filterwarnings("ignore", message=".*performance drop")
        if outside:
            est.backward(lambda: loss(model))
        else:
            est.backward(closure)
    return est.last.losses, est


OPTIONS: list[dict[str, Any]] = [
    {},
    {"difference": "forward"},
    {"probe_dtype": "int8"},
    {"everything": True},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("act_bits", [None, 8])
@pytest.mark.parametrize("loss", [cross_entropy, several])
@pytest.mark.parametrize("kind", [FOGZO, NSPSA])
def test_batched_equals_sequential_under_autocast(kind, loss, act_bits, options):
    want, one = losses_of(kind, loss, act_bits, torch.bfloat16, **options)
    options = options | {"probes_mode": "batched"}
    got, together = losses_of(kind, loss, act_bits, torch.bfloat16, **options)
    assert (one.last.probes_mode, together.last.probes_mode) == ("sequential", "batched")
    assert together.why_sequential is None
    assert together.last.loss.dtype is torch.float32
    assert one.last.flips == together.last.flips
    # twice what half precision costs the same forwards
    full, _ = losses_of(kind, loss, act_bits, None, **options)
    assert (got - want).abs().max() <= 2 * (want - full).abs().max() + 8 * EPS * want.abs().max()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_around_the_call(dtype):
    want, _ = losses_of(FOGZO, cross_entropy, None, dtype, outside=True)
    got, est = losses_of(FOGZO, cross_entropy, None, dtype, outside=True, probes_mode="batched")
    assert est.last.probes_mode == "batched"
    full, _ = losses_of(FOGZO, cross_entropy, None, None)
    assert (got - want).abs().max() <= 2 * (want - full).abs().max() + 8 * EPS * want.abs().max()


def test_a_device_whose_rules_are_unknown_is_a_reason(monkeypatch):
    with pytest.raises(RuntimeError, match="autocast is on, and this torch has no rules of it for"):
        float32_functions("hpu")

    def unknown(device: str) -> frozenset[str]:
        return float32_functions("hpu")

    monkeypatch.setattr(_autocast, "float32_functions", unknown)
    model = make()
    est = FOGZO(model, probes_mode="batched")

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return cross_entropy(model)

    with pytest.warns(UserWarning, match="one after the other: autocast is on, and this torch has"):
        est.backward(closure)
    assert est.last.probes_mode == "sequential"


@pytest.mark.parametrize("whole", [False, True])
def test_a_compiled_model_keeps_autocasts_rules(whole):
    """Compiled code calls no function that rules could be applied to: probes run in turn."""

    class WithLoss(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.net = make()

        def forward(self) -> Tensor:
            return cross_entropy(self.net)

    want, _ = losses_of(FOGZO, cross_entropy, None, torch.bfloat16)
    torch._dynamo.reset()
    model = WithLoss()
    run = torch.compile(model, backend="eager", fullgraph=whole)
    est = FOGZO(model, probes=2, seed=7, probes_mode="batched")

    def closure() -> Tensor:
        with torch.autocast("cpu", torch.bfloat16):
            return run()

    torch.manual_seed(1)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        est.backward(closure)
    assert (est.last.probes_mode == "batched") == (est.why_sequential is None)
    assert (est.last.losses - want).abs().max() <= 8 * EPS * want.abs().max()
