"""Every feature with every kind of probes: a verdict each, and each verdict tested."""

from __future__ import annotations

import copy
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from _features import FEATURES, Feature
from _table import Table
from by_hand import guides_of, losses
from torch import Tensor, nn

from fogzo import FOGZO, NSPSA

COLUMNS: dict[str, dict[str, Any]] = {
    "sequential": {},
    "batched": {"probes_mode": "batched"},
    "int8": {"probe_dtype": "int8"},
    "part": {"probe_fraction": 0.5},
    "forward": {"difference": "forward"},
    "everything": {"everything": True},
    "NSPSA": {},
}
# Models of at most five products of at most 16 terms, norms over at most 16 numbers and means of
# at most 48: every sum has at most 48 terms whose magnitudes add up to less than 16.
LOSS_ERROR = 16 * 48 * torch.finfo(torch.float32).eps
SEED, GAMMA = 11, 0.05


@pytest.fixture(scope="module", autouse=True)
def one_process(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A group of one, for what needs any; tests/test_estimator_ranks.py has two."""
    meeting = tmp_path_factory.mktemp("compose") / "meeting"
    dist.init_process_group("gloo", init_method=f"file://{meeting}", rank=0, world_size=1)
    yield
    dist.destroy_process_group()


def pair(value: Any) -> str:
    return str(value)


@pytest.mark.parametrize("column", COLUMNS, ids=pair)
@pytest.mark.parametrize("row", FEATURES, ids=pair)
def test_a_feature_with_a_kind_of_probes(row, column, table):
    feature = FEATURES[row]
    kind = NSPSA if column == "NSPSA" else FOGZO
    options = {"probes": 2, "seed": 3, **COLUMNS[column], **feature.options}
    if kind is FOGZO:
        options["gamma"] = GAMMA
    torch.manual_seed(SEED)
    model = feature.make()
    if feature.refused is not None:
        with pytest.raises((TypeError, ValueError, RuntimeError), match=re.escape(feature.refused)):
            kind(model, **options)
        table.add(row, column, f"refused: {feature.refused}")
        return
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*(one after the other|performance drop)")
        why = agree(feature, model, kind, options)
    table.add(row, column, "yes" if why is None else f"falls back: {why}")


def agree(feature: Feature, model: nn.Module, kind: Any, options: dict[str, Any]) -> str | None:
    """Train a step, compare the next one with the slow loop; why probes were not batched."""
    run = feature.running(model)  # compiled, wrapped: what the closure calls
    est = kind(run if feature.wraps else model, **options)
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.05)
    for step in range(2):
        before, state = copy.deepcopy(model), torch.get_rng_state()
        feature.backward(est, run)
        for p, old in zip(model.parameters(), before.parameters(), strict=True):
            assert torch.equal(p, old)
            assert p.grad is None or torch.isfinite(p.grad).all()
            assert p.requires_grad == old.requires_grad
        assert {m.training for m in model.modules()} == {m.training for m in before.modules()}
        if step == 0:
            feature.update(est, model, optimizer)
            optimizer.zero_grad()
    check(feature, model, before, est, state)
    if options.get("probes_mode") != "batched":
        assert est.last.probes_mode == "sequential"
        assert est.last.why_sequential is None
    else:
        assert (est.last.probes_mode == "batched") == (est.why_sequential is None)
    return None if est.why_sequential is None else short(est.why_sequential)


def check(feature: Feature, model: nn.Module, before: nn.Module, est: Any, state: Tensor) -> None:
    """The losses of the last step are the slow loop's, other gradients plain back-propagation's."""
    with torch.random.fork_rng(devices=[]):
        torch.set_rng_state(state)
        guides = guides_of(before, lambda m: lambda: feature.loss(m, feature.batch()))
    rows = None if est.probe_fraction == 1 else est.probe_fraction
    if isinstance(est, NSPSA):
        targets: dict[str, Tensor] = {
            name: p.detach() for name, p in before.named_parameters() if p.requires_grad
        }
        norm: Any = 0.0
    else:
        targets, norm = guides, est.last.norm
    want = losses(
        before,
        est,
        lambda m: lambda: feature.loss(m, feature.batch(rows)),
        targets,
        state,
        norm=norm,
        step=est.calls - 1,
    )
    half = feature.half
    error = 2 * LOSS_ERROR if not half else 2 * want.abs().max() * torch.finfo(torch.bfloat16).eps
    assert (est.last.losses - want).abs().max() <= error, (est.last.losses, want)
    if not half:
        assert est.last.losses.std() > 4 * LOSS_ERROR  # or nothing would have been compared
    perturbed = {target.name.removeprefix("module.") for target in est._targets}
    for name, p in model.named_parameters():
        if name not in perturbed and name in guides:
            plain = feature.gradient(guides[name])
            assert torch.allclose(p.grad, plain, atol=1e-6, rtol=1e-4), name


def short(reason: str) -> str:
    """Its first statement: the rest differs between versions of PyTorch."""
    return re.split(r"\. | because |; | Please|, \(Triggered", reason)[0][:160].rstrip(".")


def test_the_document_is_what_was_seen(table: Table) -> None:
    """pytest -q tests/compose --write-composition writes it."""
    if not table.complete(list(FEATURES), list(COLUMNS)):
        pytest.skip("only a part of the cells was run")
    if not torch.__version__.startswith("2.13."):
        pytest.skip("the reasons that torch.vmap gives are those of PyTorch 2.13")
    document = Path(__file__).resolve().parents[2] / "docs" / "composition.md"
    assert document.read_text(encoding="utf-8") == table.document()
