"""The main job end to end: the loop, the example, and bounds on what it reaches."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import pytest
import torch

import fogzo
from fogzo import recipes
from fogzo.cli import main
from fogzo.recipes._plot import curves
from fogzo.recipes._run import Batches, learning_rate
from fogzo.recipes._summary import summary_rows, table

EXAMPLE = Path(__file__).resolve().parent.parent / "examples" / "train_mnist.py"
MNIST = recipes.get("mnist")


def rows(folder: Path) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads((folder / "summary.json").read_text())["rows"]
    return found


def test_each_epoch_shows_every_example_at_most_once() -> None:
    batches = Batches(seed=3, examples=103, batch_size=10)
    epochs = [torch.cat([batches.at(10 * k + i) for i in range(10)]) for k in range(2)]
    for epoch in epochs:
        assert len(epoch.unique()) == 100
    assert not torch.equal(epochs[0], epochs[1])
    assert torch.equal(Batches(3, 103, 10).at(17), epochs[1][70:80])
    assert not torch.equal(Batches(4, 103, 10).at(0), epochs[0][:10])


def test_learning_rate_is_half_a_cosine() -> None:
    assert learning_rate(2.0, 0, 100) == 2.0
    assert learning_rate(2.0, 50, 100) == pytest.approx(1.0)
    assert 0 < learning_rate(2.0, 99, 100) < 2e-3


def test_example_gives_the_commands_numbers(tmp_path: Path) -> None:
    threads = torch.get_num_threads()
    words = ["train", "mnist", "--quiet", "--steps", "12", "--seeds", "2", "--out"]
    assert main([*words, str(tmp_path / "run"), "--estimators", "ste,fogzo"]) == 0
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()
    by_run: dict[tuple[str, int], list[float]] = {}
    for row in map(json.loads, metrics):
        by_run.setdefault((row["estimator"], row["seed"]), []).append(row["train_loss"])
    train = runpy.run_path(str(EXAMPLE))["train"]
    torch.set_num_threads(threads)
    made = {"ste": fogzo.STE, "fogzo": lambda model: fogzo.FOGZO(model, seed=1)}
    for name, make in made.items():
        losses, _, _ = train(make, MNIST.learning_rates[name], steps=12, seed=1)
        assert losses == by_run[name, 1]


# Training loss and test accuracy after 300 steps, each estimator at the recipe's rate: mean and
# standard deviation over seeds 0 to 4, measured; the bounds are three deviations off the mean.
REACHED = {
    "ste": ((1.0341, 0.1257), (0.7568, 0.0525)),
    "fogzo": ((0.8593, 0.1224), (0.7818, 0.0365)),
    "n-spsa": ((2.1611, 0.0179), (0.2340, 0.0289)),
}


def test_300_steps_reach_what_five_seeds_reached(tmp_path: Path) -> None:
    words = ["train", "mnist", "--quiet", "--steps", "300", "--seeds", "1", "--out"]
    assert main([*words, str(tmp_path / "run")]) == 0
    found = {row["estimator"]: row for row in rows(tmp_path / "run")}
    for name, ((loss, loss_deviation), (accuracy, accuracy_deviation)) in REACHED.items():
        assert found[name]["train_loss"][0] <= loss + 3 * loss_deviation, name
        assert found[name]["test_accuracy"][0] >= accuracy - 3 * accuracy_deviation, name
    # "By far": more than half the distance from the best to ln 10, the loss of a uniform guess.
    best = min(found[name]["train_loss"][0] for name in ("ste", "fogzo"))
    assert found["n-spsa"]["train_loss"][0] > (best + math.log(10)) / 2


def test_curves_are_window_means_with_the_range_over_seeds() -> None:
    found = curves(
        {
            "estimator": "a",
            "seed": seed,
            "step": step,
            "train_loss": step + seed,
            "forwards": 3 * step,
        }
        for seed in (0, 10)
        for step in range(120)
    )["a"]
    assert found["steps"][:2] == [2.0, 4.0]
    assert found["forwards"][:2] == [3.0, 9.0]
    assert (found["low"][0], found["mean"][0], found["high"][0]) == (0.5, 5.5, 10.5)
    assert len(found["mean"]) == 60


def test_curves_bridge_a_loss_that_was_not_finite() -> None:
    row = {"estimator": "a", "seed": 0, "forwards": 0}
    losses = [1.0, None, 3.0]
    found = curves({**row, "step": step, "train_loss": loss} for step, loss in enumerate(losses))
    assert found["a"]["mean"] == [1.0, 1.0, 3.0]


def test_table_shows_mean_and_range() -> None:
    run = {"estimator": "ste", "forwards": 3000, "seconds": 1.25}
    found = summary_rows(
        [
            {**run, "seed": 0, "train_loss": 0.5, "test_accuracy": 0.75},
            {**run, "seed": 1, "train_loss": 1.0, "test_accuracy": 0.25},
        ]
    )
    assert found[0]["train_loss"] == [0.75, 0.5, 1.0]
    assert table(found).splitlines()[1].split() == [
        "ste", "2", "0.7500", "(0.5000", "..", "1.0000)", "50.00", "(25.00", "..", "75.00)", "%",
        "3,000", "1.2",
    ]  # fmt: skip


def test_recipes_are_listed_by_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--help"])
    printed = " ".join(capsys.readouterr().out.split())
    for name in recipes.names():
        assert f"{name}: {recipes.get(name).about}" in printed
    assert isinstance(recipes.get("mnist"), recipes.Recipe)
