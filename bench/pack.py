"""pack and unpack of 18 weights' codes, 768 x 768, 2 bits each."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

import fogzo_kernels as fk

from . import _device, _layers
from . import peers_codes as peers
from ._options import BenchError, Options, sizes
from ._plain import run_plain
from ._report import Result

TESTS = ("test_pack.py",)
ABOUT = "codes of a byte into bytes of several; unpack beside it"
TAKES = {"shape": "[weights x] N x K", "bits": "1, 2, 4 or 8", "backend": ""}


def cases(options: Options) -> list[Callable[[], Result]]:
    return [lambda: run(options), lambda: run_back(options)]


def _codes(op: str, options: Options) -> tuple[Tensor, int]:
    asked = options.bits or _layers.BITS
    bits = int(asked)
    shape = sizes(op, options.shape, (_layers.COUNT, *_device.pick(_layers.SIZE, _layers.GPU_SIZE)))
    if asked not in (1, 2, 4, 8) or shape[-1] % (8 // bits):
        raise BenchError(
            f"{op}: --bits {asked} with rows of {shape[-1]}, expected 1, 2, 4 or 8 and rows of "
            "whole bytes, as the peers pack them",
            2,
        )
    generator = _device.generator()
    return torch.randint(0, 2**bits, shape, generator=generator, dtype=torch.uint8), bits


def run(options: Options) -> Result:
    """Measure packing into a tensor that is there."""
    codes, bits = _codes("pack", options)
    packed = fk.pack(codes, bits)

    def ours() -> Tensor:
        fk.pack(codes, bits, out=packed)
        data: Tensor = packed.data
        return data

    theirs = {
        **peers.packers(codes, bits, options.compiled),
        **options.users("pack", codes=codes, bits=bits),
    }
    shape = {"shape": list(codes.shape), "bits": bits}
    moved = codes.numel() + packed.data.numel()
    return run_plain("pack", options, ours, theirs, shape=shape, moved=moved)


def run_back(options: Options) -> Result:
    """Measure unpacking into a tensor that is there."""
    codes, bits = _codes("unpack", options)
    packed, out = fk.pack(codes, bits), torch.empty_like(codes)

    def ours() -> Tensor:
        found: Tensor = fk.unpack(packed, out=out)
        return found

    theirs = {
        **peers.unpackers(packed.data, bits, options.compiled),
        **options.users("unpack", data=packed.data, bits=bits),
    }
    shape = {"shape": list(codes.shape), "bits": bits}
    moved = codes.numel() + packed.data.numel()
    return run_plain("unpack", options, ours, theirs, shape=shape, moved=moved)
