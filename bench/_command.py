"""`fogzo bench`: options, tests first, then numbers; comparing, listing and drawing rows."""

from __future__ import annotations

import argparse
import importlib.util
import math
import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from fogzo_kernels import _launch

from . import (
    _device,
    _plot,
    _rows,
    ahead,
    assemble_gradient,
    calls,
    compute_scale,
    fake_quantize,
    hadamard,
    hadamard_quantize,
    noise,
    pack,
    perturb_quantize,
    probe_matmul,
    quantize,
    quantize_activation,
    static,
    step,
    tune,
    whitened_norm,
)
from ._options import BACKENDS, BITS, DTYPES, BenchError, Options, load_peer, parse_shape
from ._report import SOURCE, say

BENCHES: dict[str, ModuleType] = {
    "step": step,
    "noise": noise,
    "fake_quantize": fake_quantize,
    "perturb_quantize": perturb_quantize,
    "assemble_gradient": assemble_gradient,
    "probe_matmul": probe_matmul,
    "whitened_norm": whitened_norm,
    "quantize": quantize,
    "pack": pack,
    "hadamard": hadamard,
    "hadamard_quantize": hadamard_quantize,
    "compute_scale": compute_scale,
    "quantize_activation": quantize_activation,
    "calls": calls,
}
# Functions of a --peer file: dequantize and unpack are measured by quantize and pack.
PEERS = (*(name for name in BENCHES if name != "calls"), "dequantize", "unpack")
CHOICES = ("shape", "bits", "probes", "dtype", "backend", "model")
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


def _bits(text: str) -> float:
    if text not in ("1.58", *map(str, range(1, 9))):
        raise argparse.ArgumentTypeError(f"got {text!r}, expected {BITS}")
    return 1.58 if text == "1.58" else int(text)


def _shape(text: str) -> tuple[int, ...]:
    try:
        return parse_shape(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def _architectures(text: str) -> tuple[int, ...]:
    try:
        return static.architectures(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.description = (
        "Measure operations and training steps against stock PyTorch. Without OP: all of them, "
        "with every bar. Exits with 1 where a bar is missed. docs/benchmarking.md says how to "
        "read a row."
    )
    parser.add_argument(
        "ops", nargs="*", type=_name, metavar="OP", help=f"of {', '.join(BENCHES)} (default: all)"
    )
    what = parser.add_argument_group("what is measured (--list says which OP takes what)")
    what.add_argument("--shape", type=_shape, metavar="MxNxK")
    what.add_argument("--bits", type=_bits, help=f"of a weight: {BITS} (default 2)")
    what.add_argument("--probes", type=_count)
    what.add_argument("--dtype", choices=DTYPES, help="of activations")
    what.add_argument("--backend", choices=BACKENDS, help="of ours (default cpu)")
    what.add_argument("--model", choices=list(step.MODELS), help="for step (default: each)")
    how = parser.add_argument_group("how")
    how.add_argument(
        "--device", choices=("cpu", "cuda"), default="cpu",
        help="cuda: sizes that fill a GPU, times by CUDA events with the L2 cache emptied",
    )  # fmt: skip
    how.add_argument("--threads", type=_count, default=1, help="1 (default) measures CPU time")
    how.add_argument(
        "--repeat", "--rounds", dest="repeat", type=_count, default=60,
        help="samples of each variant (default 60)",
    )  # fmt: skip
    how.add_argument(
        "--isa", choices=("auto", "avx2"), default="auto", help="avx2 limits torch to it too"
    )
    how.add_argument("--peer", type=Path, metavar="FILE.py", help="a peer of your own")
    how.add_argument("--no-compile", action="store_true", help="leave torch.compile peers out")
    how.add_argument("--no-tests", action="store_true", help="do not run the op's tests first")
    rows = parser.add_argument_group("rows")
    rows.add_argument("--json", type=Path, metavar="FILE", help="append one row per result")
    rows.add_argument("--plot", type=Path, metavar="FILE.png", help="draw what was measured")
    rows.add_argument(
        "--compare", type=Path, nargs=2, metavar=("OLD", "NEW"),
        help="measure nothing; exit with 1 where NEW is slower than OLD beyond the noise, or a "
        "variant of ours is gone",
    )  # fmt: skip
    rows.add_argument(
        "--table", type=Path, nargs="+", metavar="FILE",
        help="measure nothing; print the bars of these rows, medians over the runs, as Markdown",
    )  # fmt: skip
    rows.add_argument(
        "--ahead", type=Path, nargs="+", metavar="FILE",
        help="measure nothing; print which GPU kernels these rows show ahead, as "
        "fogzo_kernels/_ahead.py has it",
    )  # fmt: skip
    rows.add_argument(
        "--static", action="store_true",
        help="measure nothing; compile the Triton kernels, no GPU needed, and read their machine "
        "code; exit with 1 on a spill, a narrow load, inexact arithmetic, no tensor cores",
    )  # fmt: skip
    rows.add_argument(
        "--arch", type=_architectures, default=_launch.ARCHITECTURES, metavar="80,90,100",
        help="of --static (default: all)",
    )  # fmt: skip
    rows.add_argument(
        "--tune", action="store_true",
        help="measure other rows of the launch table on this machine's GPU and print the fastest",
    )  # fmt: skip
    rows.add_argument(
        "--limit", type=_count, metavar="SECONDS",
        help="of --tune: begin no further candidate of a kernel after so many (default: try all)",
    )  # fmt: skip
    rows.add_argument("--list", action="store_true", help="measure nothing; say what there is")


def _tests_pass(name: str) -> bool:
    """Run the op's tests where the source tree has them, else the selftest on both backends."""
    tests = SOURCE / "tests"
    files = sorted(path for glob in BENCHES[name].TESTS for path in tests.glob(glob))
    if files and importlib.util.find_spec("pytest") is not None:
        say(f"{name}: running {', '.join(path.name for path in files)}")
        options = [
            "-q",
            "-x",
            "-m",
            "gpu" if _device.on_gpu() else "not gpu",
            "-p",
            "no:cacheprovider",
        ]
        words = [sys.executable, "-m", "pytest", *options]
        return subprocess.run([*words, *files], cwd=SOURCE, stdout=sys.stderr).returncode == 0
    from fogzo_kernels import selftest

    say(f"{name}: no tests here, comparing the selftest's hash with the reference's")
    return selftest.digest(None) == selftest.digest("reference")


def _list() -> list[str]:
    lines = []
    for name, module in BENCHES.items():
        lines.append(f"{name}: {module.ABOUT}")
        takes = [f"--{what} {means}".rstrip() for what, means in module.TAKES.items()]
        lines.append(f"  takes {'; '.join(takes)}")
    return lines


def _options(args: argparse.Namespace, names: list[str]) -> Options:
    """The run's options; a choice that a named bench does not take is an error."""
    given = {name: value for name in CHOICES if (value := getattr(args, name)) is not None}
    for name in names:
        for choice in given:
            if choice not in BENCHES[name].TAKES:
                raise BenchError(
                    f"{name} takes no --{choice}, expected one of "
                    + ", ".join(f"--{one}" for one in BENCHES[name].TAKES),
                    2,
                )
    return Options(
        threads=args.threads,
        repeat=args.repeat,
        compiled=not args.no_compile,
        peer_name="" if args.peer is None else args.peer.name,
        peer={} if args.peer is None else load_peer(args.peer, PEERS),
        **given,
    )


def _compile_for_avx2() -> None:
    """Tell torch.compile itself: with the environment alone its loops step by 16 and write 8."""
    import torch._inductor.config as inductor

    inductor.cpp.simdlen = 256


def _measure(args: argparse.Namespace, words: list[str]) -> int:
    names = args.ops or list(BENCHES)
    options = _options(args, names)
    if args.plot is not None:
        _plot.require(args.plot)
    torch.set_num_threads(args.threads)
    if args.device == "cuda":
        if not torch.cuda.is_available():
            raise BenchError("--device cuda measures on a GPU: no CUDA device")
        torch.set_default_device("cuda")
    if args.isa == "avx2" and options.compiled:
        _compile_for_avx2()
    passed: bool = True
    rows: list[dict[str, Any]] = []
    for name in names:
        if not args.no_tests and not _tests_pass(name):
            raise BenchError(f"the tests of {name} failed, so there is no number")
        for case in BENCHES[name].cases(options):
            result = case()
            print("\n".join(result.lines()), flush=True)
            passed = passed and result.passes()
            rows.append(result.row(args.threads, words))
            if args.json is not None:
                _rows.append(args.json, rows[-1])
    if args.plot is not None:
        _plot.draw(rows, args.plot)
    return 0 if passed else 1


def run(args: argparse.Namespace, words: list[str]) -> int:
    """Run the named benches, or one of --list, --compare, --table, --ahead.

    Args:
        args: as add_arguments defines them.
        words: the command line behind `fogzo`, for the rows and for starting again.

    Returns:
        0; 1 where tests fail, a bar is missed, or --compare finds ours slower or gone; 2 for a
        wrong use.
    """
    try:
        if args.list:
            print("\n".join(_list()))
            return 0
        if args.static:
            return static.run(args.arch, args.ops)
        if args.tune:
            return tune.run(args.ops, math.inf if args.limit is None else args.limit)
        if args.table:
            print("\n".join(_rows.table([row for path in args.table for row in _rows.load(path)])))
            return 0
        if args.ahead:
            print("\n".join(ahead.lines([row for path in args.ahead for row in _rows.load(path)])))
            return 0
        if args.compare:
            lines, slower = _rows.compare(*(_rows.load(path) for path in args.compare))
            print("\n".join(lines))
            return 1 if slower else 0
        needed = {**MALLOC, **(AVX2 if args.isa == "avx2" else {})}
        if any(os.environ.get(name) != value for name, value in needed.items()):
            words = [sys.executable, "-m", "fogzo.cli", *words]
            return subprocess.run(words, env={**os.environ, **needed}).returncode
        return _measure(args, words)
    except BenchError as error:
        say(f"fogzo: bench: {error}")
        return error.code
