"""The training loop of every recipe: estimator after estimator, seed after seed, resumable."""

from __future__ import annotations

import math
import signal
import threading
import time
import warnings
from dataclasses import asdict, dataclass
from functools import partial
from types import FrameType
from typing import Any

import torch

from ._files import METRICS, TIMING, RunFolder
from ._progress import Progress
from ._recipe import Recipe, Task
from ._spec import EstimatorSpec, UsageError


@dataclass(frozen=True)
class Config:
    """What decides a run's numbers; a resumed run must have the same.

    steps, seeds, batch_size: counts; lr: --lr or None for the recipe's rates; device: as torch
    names it; threads: of torch on the CPU.
    """

    recipe: str
    estimators: tuple[str, ...]
    steps: int
    seeds: int
    batch_size: int
    lr: float | None
    device: str
    threads: int

    def plain(self) -> dict[str, Any]:
        """The fields as JSON and a checkpoint hold them."""
        return {**asdict(self), "estimators": list(self.estimators)}


class Interrupt:
    """Turns the first SIGINT into a flag; a second one ends the process as usual."""

    requested = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = True
        signal.signal(signal.SIGINT, signal.SIG_DFL)

    def __enter__(self) -> Interrupt:
        self._previous: Any = None
        if threading.current_thread() is threading.main_thread():
            self._previous = signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exception: object) -> None:
        if self._previous is not None:
            signal.signal(signal.SIGINT, self._previous)


def learning_rate(peak: float, step: int, steps: int) -> float:
    """Half a cosine from peak at step 0 towards 0 at the end: peak (1 + cos(pi step/steps)) / 2."""
    return peak * 0.5 * (1 + math.cos(math.pi * step / steps))


class Batches:
    """Which examples each step takes, for one seed.

    Epoch k is the permutation drawn by a generator seeded with seed * 2^16 + k (torch's CPU
    generator reads 32 bits of a seed), cut into whole batches; the remainder is dropped. Any
    step's batch can be made alone, so resuming needs no state.
    """

    def __init__(self, seed: int, examples: int, batch_size: int) -> None:
        self._seed, self._examples, self._size = seed, examples, batch_size
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def at(self, step: int) -> torch.Tensor:
        """Indices (int64 [batch_size]) of one step's examples."""
        epoch, position = divmod(step, self._examples // self._size)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed((self._seed << 16) + epoch)
            self._epoch, self._order = epoch, torch.randperm(self._examples, generator=generator)
        return self._order[position * self._size : (position + 1) * self._size]


class Run:
    """One estimator with one seed: model, optimizer, estimator and how far they are."""

    def __init__(
        self, recipe: Recipe, task: Task, config: Config, spec: EstimatorSpec, seed: int
    ) -> None:
        self.spec, self.seed, self.steps = spec, seed, config.steps
        self._task = task
        self._batches = Batches(seed, task.examples, config.batch_size)
        self._peak = spec.learning_rate(recipe, config.lr)
        self.model = recipe.model(seed, **spec.model_options).to(config.device)
        self.estimator = spec.make(self.model, seed)
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=self._peak, fused=True)
        self.step, self.seconds = 0, 0.0

    @property
    def name(self) -> str:
        return f"{self.spec.label} seed {self.seed}"

    def advance(self) -> tuple[dict[str, Any], dict[str, Any]]:
        """Take one step; returns its rows for metrics.jsonl and timing.jsonl."""
        started = time.perf_counter()
        self.optimizer.param_groups[0]["lr"] = learning_rate(self._peak, self.step, self.steps)
        batch = self._task.batch(self._batches.at(self.step))
        loss = self.estimator.backward(partial(self._task.loss, self.model), batch=batch)
        self.optimizer.step()
        self.optimizer.zero_grad()
        last = self.estimator.last
        row = {"estimator": self.spec.label, "seed": self.seed, "step": self.step}
        metrics = {
            **row,
            "train_loss": loss.item(),
            "gamma": _plain(last.gamma) if len(last.difference) else None,
            "forwards": self.estimator.forwards,
            "difference": _plain(last.difference),
            "predicted": _plain(last.predicted),
            "flips": {name: _plain(count) for name, count in last.flips.items()},
        }
        seconds = time.perf_counter() - started
        self.step += 1
        self.seconds += seconds
        return metrics, {**row, "seconds": seconds}

    def state(self) -> dict[str, Any]:
        return {
            "step": self.step,
            "seconds": self.seconds,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "estimator": self.estimator.state_dict(),
            "random": torch.get_rng_state(),
        }

    def restore(self, state: dict[str, Any]) -> None:
        self.step, self.seconds = state["step"], state["seconds"]
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.estimator.load_state_dict(state["estimator"])
        torch.set_rng_state(state["random"])

    def result(self) -> dict[str, Any]:
        """What the summary needs of a finished run; evaluates the model."""
        train_loss, test_accuracy = self._task.evaluate(self.model)
        return {
            "estimator": self.spec.label,
            "seed": self.seed,
            "train_loss": train_loss,
            "test_accuracy": test_accuracy,
            "forwards": self.estimator.forwards,
            "seconds": self.seconds,
        }


def _plain(value: Any) -> Any:
    """A tensor as a number or list of numbers; anything else as it is."""
    return value.tolist() if isinstance(value, torch.Tensor) else value


class Session:
    """All runs of one command: every seed with every estimator, in that order."""

    def __init__(
        self, recipe: Recipe, task: Task, config: Config, specs: list[EstimatorSpec]
    ) -> None:
        if config.batch_size > task.examples:
            raise UsageError(
                f"train: --batch-size has {config.batch_size}, expected at most the "
                f"{task.examples} training examples"
            )
        self._recipe, self._task, self._config = recipe, task, config
        self._runs = [(spec, seed) for seed in range(config.seeds) for spec in specs]
        self._index = 0
        self._current: Run | None = None
        self.results: list[dict[str, Any]] = []

    @property
    def total_steps(self) -> int:
        return len(self._runs) * self._config.steps

    @property
    def done_steps(self) -> int:
        here = 0 if self._current is None else self._current.step
        return self._index * self._config.steps + here

    def warm_up(self) -> None:
        """One step of a throw-away run: what torch imports at its first step is not timed."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            self._make(0).advance()

    def _make(self, index: int) -> Run:
        spec, seed = self._runs[index]
        return Run(self._recipe, self._task, self._config, spec, seed)

    def state(self, versions: dict[str, Any]) -> dict[str, Any]:
        run = None if self._current is None else self._current.state()
        return {
            "config": self._config.plain(),
            "versions": versions,
            "index": self._index,
            "run": run,
            "results": self.results,
        }

    def restore(self, state: dict[str, Any]) -> None:
        self._index, self.results = state["index"], state["results"]
        if state["run"] is not None:
            self._current = self._make(self._index)
            self._current.restore(state["run"])

    def train(
        self,
        folder: RunFolder,
        progress: Progress,
        interrupt: Interrupt,
        versions: dict[str, Any],
        checkpoint_seconds: float,
    ) -> bool:
        """Run until all is done (True) or an interrupt was asked for (False); writes as it goes."""
        folder.checkpoint(self.state(versions))
        written = time.monotonic()
        while self._index < len(self._runs):
            if self._current is None:
                self._current = self._make(self._index)
            run = self._current
            progress.start(run.name)
            while run.step < self._config.steps:
                metrics, timing = run.advance()
                folder.add(METRICS, metrics)
                folder.add(TIMING, timing)
                progress.step(metrics["train_loss"])
                if interrupt.requested:
                    folder.checkpoint(self.state(versions))
                    return False
                if time.monotonic() - written >= checkpoint_seconds:
                    folder.checkpoint(self.state(versions))
                    written = time.monotonic()
            result = run.result()
            self.results.append(result)
            progress.say(
                f"{run.name}: training loss {result['train_loss']:.4f}, "
                f"test accuracy {result['test_accuracy']:.4f}, {result['seconds']:.1f} s"
            )
            self._index, self._current = self._index + 1, None
            folder.checkpoint(self.state(versions))
            written = time.monotonic()
        return True
