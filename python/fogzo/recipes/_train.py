"""`fogzo train`: from typed options to a finished run folder."""

from __future__ import annotations

import argparse
import os
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from .._info import versions
from ._files import CURVES, METRICS, RunFolder, RunFolderError
from ._plot import draw
from ._progress import Progress
from ._recipe import Recipe
from ._run import Config, Interrupt, Session
from ._spec import UsageError, parse_estimators
from ._summary import summary_rows, table

DONE, INTERRUPTED = 0, 130


def _device(text: str) -> str:
    try:
        device = torch.device(text)
        torch.zeros((), device=device).item()  # meta has no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise UsageError(
            f"train: --device has {text!r}, expected a device that torch can use here ({reason})"
        ) from None
    return str(device)


def _typed(args: argparse.Namespace) -> dict[str, Any]:
    """The options that decide numbers, as far as the user typed them."""
    typed: dict[str, Any] = {"recipe": args.recipe}
    if args.estimators is not None:
        typed["estimators"] = [spec.label for spec in parse_estimators(args.estimators)]
    for name in ("steps", "seeds", "batch_size", "lr", "threads"):
        if getattr(args, name) is not None:
            typed[name] = getattr(args, name)
    if args.device is not None:
        typed["device"] = _device(args.device)
    return typed


def _fresh(recipe: Recipe, typed: dict[str, Any]) -> Config:
    default = Config(
        recipe=recipe.name,
        estimators=tuple(spec.label for spec in parse_estimators(recipe.estimators)),
        steps=recipe.steps,
        seeds=recipe.seeds,
        batch_size=recipe.batch_size,
        lr=None,
        device="cpu",
        threads=recipe.threads,
    )
    if "estimators" in typed:
        typed = {**typed, "estimators": tuple(typed["estimators"])}
    return replace(default, **typed)


def _resumed(stored: dict[str, Any], typed: dict[str, Any], folder: Path) -> Config:
    for name, value in typed.items():
        if value != stored[name]:
            raise UsageError(
                f"train: --resume {folder} with {name} got {_words(value)}, "
                f"expected {_words(stored[name])} as that run began"
            )
    return Config(**{**stored, "estimators": tuple(stored["estimators"])})


def _words(value: Any) -> str:
    if value is None:  # of lr alone
        return "the recipe's rates"
    return ",".join(value) if isinstance(value, list) else str(value)


def _warn_versions(stored: dict[str, Any]) -> None:
    for name, now in versions().items():
        if stored.get(name) != now:
            print(
                f"train: {name} is {now}, this run began with {stored.get(name)}: "
                "its numbers may continue differently",
                file=sys.stderr,
            )


def train(args: argparse.Namespace, recipe: Recipe) -> int:
    """Run or resume a recipe as typed.

    Args:
        args: recipe, estimators, steps, seeds, batch_size, lr, device, threads (None where not
            typed), out, resume, data, checkpoint_seconds, quiet.
        recipe: what to train.

    Returns:
        Exit code: 0 done, 130 interrupted.

    Raises:
        UsageError: options out of range, or a resume with other options.
        RunFolderError, DataError: the folder or the data cannot be used.
    """
    typed = _typed(args)
    state: dict[str, Any] | None = None
    if args.resume is not None:
        if args.out is not None and args.out.resolve() != args.resume.resolve():
            raise UsageError(
                f"train: --out has {args.out}, expected {args.resume} or nothing with --resume"
            )
        state = RunFolder.read_checkpoint(args.resume)
        config = _resumed(state["config"], typed, args.resume)
        _warn_versions(state["versions"])
    else:
        config = _fresh(recipe, typed)
    _device(config.device)
    torch.set_num_threads(config.threads)
    if config.device.startswith("cuda"):
        # cuBLAS sums in a fixed order only with a workspace of fixed size.
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        torch.use_deterministic_algorithms(True)
    interrupt = Interrupt()
    with interrupt:  # Ctrl-C from here on ends with a folder that --resume continues
        task = recipe.task(args.data, torch.device(config.device))
        session = Session(recipe, task, config, parse_estimators(",".join(config.estimators)))
        session.warm_up()
        if state is None:
            out = args.out or Path(f"runs/{recipe.name}-{time.strftime('%Y%m%d-%H%M%S')}")
            folder = RunFolder.create(out)
        else:
            session.restore(state)
            folder = RunFolder.reopen(args.resume, state)
    with folder:
        return _run(session, folder, config, args, interrupt)


def _run(
    session: Session,
    folder: RunFolder,
    config: Config,
    args: argparse.Namespace,
    interrupt: Interrupt,
) -> int:
    progress = Progress(session.total_steps, session.done_steps, args.quiet)
    with progress, interrupt:
        finished = session.train(folder, progress, interrupt, versions(), args.checkpoint_seconds)
    if not finished:
        print(
            f"interrupted after {session.done_steps} of {session.total_steps} steps; "
            f"continue with: fogzo train {config.recipe} --resume {folder.path}",
            file=sys.stderr,
        )
        return INTERRUPTED
    rows = summary_rows(session.results)
    folder.summary({"config": config.plain(), "versions": versions(), "rows": rows})
    print(table(rows))
    try:
        seeds = "1 seed" if config.seeds == 1 else f"mean and range of {config.seeds} seeds"
        title = f"fogzo train {config.recipe}: {seeds}, batch {config.batch_size}"
        folder.picture(draw(folder.read(METRICS), title))
        print(f"picture: {folder.path / CURVES}")
    except ImportError as error:
        print(
            f"{CURVES} is not drawn ({error}): pip install 'fogzo-kernels[train]'", file=sys.stderr
        )
    except OSError as error:
        raise RunFolderError(
            f"train: {folder.path / CURVES} is not drawn ({error}); the other files are complete"
        ) from None
    print(f"files: {folder.path}")
    return DONE
