"""`fogzo bench`: which benches there are, tests first, then numbers."""

from __future__ import annotations

import argparse
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import torch

from . import assemble_gradient, fake_quantize, noise, perturb_quantize, probe_matmul, step
from ._report import SOURCE, Result, append, say

BENCHES = {
    "step": step,
    "noise": noise,
    "fake_quantize": fake_quantize,
    "perturb_quantize": perturb_quantize,
    "assemble_gradient": assemble_gradient,
    "probe_matmul": probe_matmul,
}
# Large blocks come from the heap and stay there; else page faults are measured, not work.
MALLOC = {"MALLOC_TRIM_THRESHOLD_": "4000000000", "MALLOC_MMAP_THRESHOLD_": "4000000000"}
# Read when the libraries load.
AVX2 = {
    "FOGZO_ISA": "avx2",
    "ATEN_CPU_CAPABILITY": "avx2",
    "MKL_ENABLE_INSTRUCTIONS": "AVX2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "FBGEMM_ENABLE_INSTRUCTIONS": "AVX2",
}


def _name(text: str) -> str:
    if text not in BENCHES:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected one of {', '.join(BENCHES)}")
    return text


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"got {text!r}, expected a whole number of at least 1")
    return int(text)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "ops", nargs="*", type=_name, metavar="OP", help=f"of {', '.join(BENCHES)} (default: all)"
    )
    parser.add_argument("--model", choices=list(step.MODELS), default="mnist", help="for step")
    parser.add_argument("--threads", type=_count, default=1, help="1 (default) measures CPU time")
    parser.add_argument("--rounds", type=_count, default=60, help="samples of each variant")
    parser.add_argument(
        "--isa", choices=("auto", "avx2"), default="auto", help="avx2 limits torch to it too"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="append one row per result")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile peers out")
    parser.add_argument("--no-tests", action="store_true", help="do not run the op's tests first")


def _tests_pass(name: str) -> bool:
    """Run the op's tests where the source tree has them, else the selftest on both backends."""
    tests = SOURCE / "tests"
    files = sorted(path for glob in BENCHES[name].TESTS for path in tests.glob(glob))
    if files and importlib.util.find_spec("pytest") is not None:
        say(f"{name}: running {', '.join(path.name for path in files)}")
        words = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"]
        return subprocess.run([*words, *files], cwd=SOURCE, stdout=sys.stderr).returncode == 0
    from fogzo_kernels import selftest

    say(f"{name}: no tests here, comparing the selftest's hash with the reference's")
    return selftest.digest(None) == selftest.digest("reference")


def _results(name: str, args: argparse.Namespace) -> list[Callable[[], Result]]:
    compiled = not args.no_compile
    if name == "step":
        return [partial(step.run, args.model, args.threads, args.rounds, compiled)]
    if name == "fake_quantize":
        return [partial(fake_quantize.run, args.threads, args.rounds, compiled)]
    if name == "probe_matmul":
        return [
            partial(probe_matmul.run, case, args.threads, args.rounds)
            for case in probe_matmul.CASES
        ]
    kinds = ("published", "rademacher")
    if name == "perturb_quantize":
        return [
            partial(perturb_quantize.run, k, args.threads, args.rounds, compiled) for k in kinds
        ]
    module = noise if name == "noise" else assemble_gradient
    return [partial(module.run, kind, args.threads, args.rounds) for kind in kinds]


def run(args: argparse.Namespace, words: list[str]) -> int:
    """Run the named benches.

    Args:
        args: as add_arguments defines them.
        words: the command line behind `fogzo`, for the rows and for starting again.

    Returns:
        0; 1 where tests fail or a bar is missed.
    """
    needed = {**MALLOC, **(AVX2 if args.isa == "avx2" else {})}
    if any(os.environ.get(name) != value for name, value in needed.items()):
        environment = {**os.environ, **needed}
        return subprocess.run(
            [sys.executable, "-m", "fogzo.cli", *words], env=environment
        ).returncode
    torch.set_num_threads(args.threads)
    passed, rows = True, []
    for name in args.ops or BENCHES:
        if not args.no_tests and not _tests_pass(name):
            say(f"bench: the tests of {name} failed, so there is no number")
            return 1
        for measure in _results(name, args):
            result = measure()
            print("\n".join(result.lines()), flush=True)
            passed = passed and result.passes()
            rows.append(result.row(args.threads, words))
    if args.json is not None:
        append(args.json, rows)
    return 0 if passed else 1
