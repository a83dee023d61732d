"""The `fogzo` script: fogzo.cli where fogzo can be imported, else what can be said without torch.

It is no part of fogzo, whose import needs torch, nor of fogzo_kernels, which does not know fogzo.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence

import fogzo_kernels
from fogzo_kernels import _info


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the `fogzo` command.

    Args:
        arguments: words after `fogzo`; None for those of the process.

    Returns:
        What fogzo.cli returns. Without a torch that fogzo can use: 0 for `info [--json]` and
        `--version`, which describe fogzo_kernels then, else 1 and a line with the reason. 130
        where Ctrl-C comes before fogzo.cli can say so.

    Example:
        >>> main(["--version"])  # doctest: +SKIP
        fogzo-kernels 0.1.0
    """
    words = list(sys.argv[1:] if arguments is None else arguments)
    try:
        from fogzo import cli
    except ImportError as error:
        if error.name != "torch":
            raise
        return _without_torch(words, str(error))
    except KeyboardInterrupt:
        print("fogzo: interrupted", file=sys.stderr)
        return 130
    return cli.main(words)


def _without_torch(words: list[str], reason: str) -> int:
    if words == ["--version"]:
        print(f"fogzo-kernels {fogzo_kernels.__version__}")
    elif words == ["info"]:
        print("\n".join([*_info.lines(_info.described()), f"fogzo: not usable: {reason}"]))
    elif words == ["info", "--json"]:
        print(json.dumps({**_info.described(), "fogzo": reason}, indent=2))
    else:
        print(f"fogzo: {reason}", file=sys.stderr)
        return 1
    return 0
