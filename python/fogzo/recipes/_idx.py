"""IDX files: the MNIST family's format, read with its magic, shape and checksum verified."""

from __future__ import annotations

import gzip
import hashlib
import math
import os
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import torch

_UNSIGNED_BYTE = 0x08


class DataError(Exception):
    """A data file is missing, unreadable or not the file its checksum promises."""


@dataclass(frozen=True)
class IdxFile:
    """What one gzip-compressed IDX file must be.

    name: file name, ending in .gz; shape: elements per dimension; md5: of the unpacked bytes;
    source: where a user gets it. Its .gz may have any size: only what it unpacks to is checked.
    """

    name: str
    shape: tuple[int, ...]
    md5: str
    source: str

    @property
    def unpacked_bytes(self) -> int:
        return 4 + 4 * len(self.shape) + math.prod(self.shape)

    def describe(self) -> str:
        """The line that tells a user which file is wanted and where it comes from."""
        return (
            f"{self.name} ({self.unpacked_bytes:,} bytes unpacked, with "
            f"MD5 {self.md5}); get it from {self.source}{self.name}"
        )


def _unpack(file: IdxFile, path: Path) -> bytes:
    try:
        packed = path.read_bytes()
    except OSError as error:
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise DataError(
            f"data: {path} cannot be read ({reason}), expected {file.describe()}"
        ) from None
    try:
        return gzip.decompress(packed)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(
            f"data: {path} is {len(packed):,} bytes that do not unpack ({error}), "
            f"expected {file.describe()}"
        ) from None


def read_idx(file: IdxFile, folder: Path) -> torch.Tensor:
    """Read one IDX file of unsigned bytes and verify it.

    An IDX file is a magic word (two zero bytes, the element type, the number of dimensions), one
    big-endian 32-bit size per dimension, then the elements in row-major order.

    Args:
        file: name, shape and MD5 that the file must have.
        folder: where it lies.

    Returns:
        uint8 tensor of file.shape.

    Raises:
        DataError: the file is missing, does not unpack, has another magic, shape or checksum;
            the text names the file, its size, its checksum and where to get it.

    Example:
        >>> read_idx(TRAIN_LABELS, Path("data/mnist")).shape
        torch.Size([60000])
    """
    path = folder / file.name
    raw = _unpack(file, path)

    def fail(argument: str, got: object, expected: object) -> None:
        raise DataError(
            f"data: {path} has {argument} {got}, expected {expected}; wanted is {file.describe()}"
        )

    header = 4 + 4 * len(file.shape)
    magic = struct.pack(">HBB", 0, _UNSIGNED_BYTE, len(file.shape))
    if raw[:4] != magic:
        fail("magic", raw[:4].hex() or "nothing", magic.hex())
    if len(raw) < header:
        fail("a header of", f"{len(raw)} bytes", f"{header} bytes")
    shape = struct.unpack(f">{len(file.shape)}I", raw[4:header])
    if shape != file.shape:
        fail("shape", shape, file.shape)
    if len(raw) != file.unpacked_bytes:
        fail("unpacked size", f"{len(raw):,} bytes", f"{file.unpacked_bytes:,} bytes")
    digest = hashlib.md5(raw, usedforsecurity=False).hexdigest()
    if digest != file.md5:
        fail("MD5", digest, file.md5)
    return torch.frombuffer(bytearray(raw), dtype=torch.uint8, offset=header).view(shape)
