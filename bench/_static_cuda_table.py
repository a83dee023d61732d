"""What is expected of each CUDA kernel in csrc/cuda, and what one call has to do.

A kernel that is compiled and not in TABLE, or in TABLE and not compiled, is a finding.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ._static_work import WEIGHTS, Work

Arguments = tuple[str, ...]  # of a template, as C++ writes them


@dataclass(frozen=True)
class Expected:
    """One kernel template; all its instances alike, but for what is a function of their arguments.

    op: stem of its source. exact: its arithmetic is the contract's, bit for bit. loads16, stores16:
    arrays that are read and written 16 bytes at a time. tensor: name of the tensor-core
    instruction, "" without products. shared: bytes of dynamic shared memory. architectures: all, or
    those it is compiled for.
    """

    op: str
    work: Callable[[Arguments], list[Work]]
    exact: bool = True
    loads16: Callable[[Arguments], int] | int = 0
    stores16: Callable[[Arguments], int] | int = 0
    tensor: Callable[[Arguments], str] | str = ""
    shared: Callable[[Arguments], int] | int = 0
    architectures: tuple[int, ...] = (80, 90, 100)


def weights(each: float, span: int) -> Callable[[Arguments], list[Work]]:
    """A pass over all weights, ``each`` bytes for one; a block's loop goes over span of them."""
    shape = f"{WEIGHTS >> 20}M weights"
    job = Work(shape, each * WEIGHTS, 0, "", WEIGHTS, -(-WEIGHTS // span), 1)
    return lambda arguments: [job]


TABLE = {
    "noise_kernel": Expected("noise", weights(4.0, 1024)),  # a thread's elements lie 128 apart
}


def jobs(name: str, arguments: Arguments) -> list[Work]:
    """The calls that a kernel's time is bounded for; none where TABLE does not know it."""
    return TABLE[name].work(arguments) if name in TABLE else []
