"""The `fogzo` command: options, exit codes and error lines; the work is done elsewhere."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from pathlib import Path

from fogzo_kernels import __version__

from . import recipes
from ._info import info_lines, info_object
from .recipes._files import RunFolderError
from .recipes._idx import DataError
from .recipes._spec import UsageError

DONE, FAILURE, USAGE, INTERRUPTED = 0, 1, 2, 130
MAX_THREADS = 4096  # more than any machine's; an OpenMP runtime ends the process where it has none


def _whole(high: int | None = None, why: str = "") -> Callable[[str], int]:
    """Parses a whole number from 1 to ``high``, which has the reason ``why``."""
    expected = "a whole number " + ("of at least 1" if high is None else f"from 1 to {high}{why}")

    def parse(text: str) -> int:
        try:
            value = int(text)
        except ValueError:
            value = 0
        if value < 1 or (high is not None and value > high):
            raise argparse.ArgumentTypeError(f"got {text!r}, expected {expected}")
        return value

    return parse


def _positive(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a positive number")
    return value


def _seconds(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not value >= 0:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a number of at least 0")
    return value


def _path(what: str) -> Callable[[str], Path]:
    def parse(text: str) -> Path:
        if not text:
            raise argparse.ArgumentTypeError(f"got '', expected {what}")
        return Path(text)

    return parse


_folder = _path("a folder")


def _add_train(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    train = commands.add_parser(
        "train",
        help="train a recipe with several estimators side by side",
        description="Train a recipe with each estimator and seed; write metrics, a summary and "
        "a picture. Ctrl-C stops after the current step, --resume continues.",
        epilog="recipes: "
        + "; ".join(f"{name}: {recipes.get(name).about}" for name in recipes.names()),
    )
    train.add_argument("recipe", choices=recipes.names())
    train.add_argument(
        "--estimators",
        metavar="LIST",
        help="comma-separated ste, fogzo, n-spsa, each with options behind colons, e.g. "
        "ste,fogzo:gamma=1e-3:probes=10,n-spsa:probes=100",
    )
    train.add_argument("--steps", type=_whole(), help="optimizer steps of each run")
    train.add_argument(
        "--seeds",
        type=_whole(2**16, " (its batches have no more seeds)"),
        help="runs of each estimator",
    )
    train.add_argument("--batch-size", type=_whole())
    train.add_argument("--lr", type=_positive, help="Adam's initial rate for every estimator")
    train.add_argument(
        "--out", metavar="DIR", type=_folder, help="new folder (default runs/RECIPE-TIME)"
    )
    train.add_argument(
        "--resume", metavar="DIR", type=_folder, help="continue the run in this folder"
    )
    train.add_argument("--data", metavar="DIR", type=_folder, help="read the data files from here")
    train.add_argument("--device", help="as torch names it (default cpu)")
    train.add_argument(
        "--threads", type=_whole(MAX_THREADS), help="CPU threads (default: the recipe's)"
    )
    train.add_argument(
        "--checkpoint-seconds",
        type=_seconds,
        default=10.0,
        metavar="S",
        help="time between checkpoints (default 10)",
    )
    train.add_argument("--quiet", action="store_true", help="no progress, only the table")
    train.set_defaults(run=_train)


def _train(args: argparse.Namespace) -> int:
    from .recipes._train import train

    return train(args, recipes.get(args.recipe))


def _plot(args: argparse.Namespace) -> int:
    from .recipes._panels import plot

    return plot(args)


def _report(args: argparse.Namespace) -> int:
    from .recipes._report import report

    return report(args)


def _info(args: argparse.Namespace) -> int:
    import json

    print(json.dumps(info_object(), indent=2) if args.json else "\n".join(info_lines()))
    return DONE


def _selftest(args: argparse.Namespace) -> int:
    import fogzo_kernels as fk
    from fogzo_kernels import selftest

    reason = None if args.backend is None else fk.why_not(args.backend)
    if reason is not None:
        print(f"fogzo: selftest: {args.backend} is not used: {reason}", file=sys.stderr)
        return FAILURE
    print(selftest.digest(args.backend))
    return DONE


def _bench(args: argparse.Namespace) -> int:
    from fogzo_bench import run

    return run(args, args.words)


def _no_bench(args: argparse.Namespace) -> int:
    print("fogzo: bench: fogzo_bench is not installed: pip install . (or -e .)", file=sys.stderr)
    return FAILURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="fogzo", description="Training with 1- to 4-bit weights beyond the STE."
    )
    parser.add_argument("--version", action="version", version=f"fogzo-kernels {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_train(commands)

    plot = commands.add_parser(
        "plot", help="draw loss, ratio, flips, gamma and oscillation of a run"
    )
    plot.add_argument(
        "rows",
        metavar="RUN",
        type=_path("a folder or file"),
        help="a folder that `fogzo train` wrote, or the file of a fogzo.Logger",
    )
    plot.add_argument(
        "--out", metavar="FILE", type=_path("a file"), help="the picture (default: beside the rows)"
    )
    plot.set_defaults(run=_plot)

    report = commands.add_parser("report", help="print the tables of finished runs side by side")
    report.add_argument("runs", metavar="RUN", nargs="+", type=_folder)
    report.add_argument("--markdown", action="store_true", help="as a table of Markdown")
    report.set_defaults(run=_report)

    info = commands.add_parser("info", help="versions, CPU, backends and where files are")
    info.add_argument("--json", action="store_true", help="as one JSON object")
    info.set_defaults(run=_info)

    selftest = commands.add_parser(
        "selftest", help="print one hash over codes, equal on every machine and backend"
    )
    selftest.add_argument(
        "--backend",
        choices=("cpu", "triton", "cuda", "reference"),
        help="default: the one that is chosen automatically",
    )
    selftest.set_defaults(run=_selftest)

    bench = commands.add_parser("bench", help="measure speed against stock PyTorch")
    if find_spec("fogzo_bench") is None:
        bench.set_defaults(run=_no_bench)
    else:
        from fogzo_bench import add_arguments

        add_arguments(bench)
        bench.set_defaults(run=_bench)
    return parser


def _close_output() -> None:
    """Let what stdout still holds go nowhere: not even the flush at exit fails then."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `fogzo` command.

    Args:
        arguments: words after `fogzo`; None for those of the process.

    Returns:
        0 done, 1 failure, 2 usage, 130 interrupted. (argparse itself exits with 2.)

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        fogzo-kernels 0.1.0
    """
    try:
        words = list(sys.argv[1:] if arguments is None else arguments)
        args = _parser().parse_args(words)
        args.words = words
        code: int = args.run(args)
        sys.stdout.flush()
        return code
    except UsageError as error:
        print(f"fogzo: {error}", file=sys.stderr)
        return USAGE
    except (RunFolderError, DataError, FloatingPointError) as error:
        print(f"fogzo: {error}", file=sys.stderr)
        return FAILURE
    except BrokenPipeError:
        _close_output()  # its reader is gone: nothing is left to say
        return FAILURE
    except OSError as error:
        if error.filename is None:
            _close_output()
        print(f"fogzo: {error.filename or 'output'}: {error.strerror}", file=sys.stderr)
        return FAILURE
    except KeyboardInterrupt:
        print("fogzo: interrupted", file=sys.stderr)
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
