"""Speed measurements against stock PyTorch: what `fogzo bench` runs.

One module per bench (step and one per operation); peers.py holds everything compared with.
"""

from __future__ import annotations

import argparse

__all__ = ["add_arguments", "run"]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add the options of `fogzo bench` to a parser."""
    from ._command import add_arguments as add

    add(parser)


def run(args: argparse.Namespace, words: list[str]) -> int:
    """Run the benches that `args` names.

    Args:
        args: as add_arguments defines them.
        words: the command line behind `fogzo`.

    Returns:
        0, or 1 where tests fail or a bar is missed.
    """
    from ._command import run as start

    return start(args, words)
