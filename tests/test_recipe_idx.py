"""IDX files: the canonical ones load, every kind of damage is named."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import pytest
import torch

from fogzo.recipes._idx import DataError, IdxFile, read_idx
from fogzo.recipes.mnist import DATA, TEST_LABELS, TRAIN_IMAGES, load_mnist

SHAPE = (3, 2, 2)


def raw(shape: tuple[int, ...] = SHAPE, kind: int = 0x08) -> bytes:
    header = struct.pack(f">HBB{len(shape)}I", 0, kind, len(shape), *shape)
    return header + bytes(range(torch.Size(shape).numel()))


def wanted(data: bytes) -> IdxFile:
    return IdxFile("tiny.gz", SHAPE, hashlib.md5(data).hexdigest(), "https://example.org/")


def write(folder: Path, data: bytes) -> None:
    (folder / "tiny.gz").write_bytes(gzip.compress(data))


def test_elements_come_in_row_major_order(tmp_path: Path) -> None:
    write(tmp_path, raw())
    got = read_idx(wanted(raw()), tmp_path)
    assert got.dtype == torch.uint8
    assert torch.equal(got, torch.arange(12, dtype=torch.uint8).view(SHAPE))


def test_packaged_mnist_is_the_canonical_one() -> None:
    images, labels, test_images, test_labels = load_mnist()
    assert images.shape == (60000, 784)
    assert test_images.shape == (10000, 784)
    assert torch.bincount(labels).tolist() == [
        5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949,
    ]  # fmt: skip
    assert test_labels[:5].tolist() == [7, 2, 1, 0, 4]
    # MEAN and DEVIATION have four digits: half a unit of the last, over the deviation 0.3081.
    assert abs(images.double().mean().item()) < 5e-5 / 0.3081
    assert abs(images.double().std().item() - 1) < 5e-5 / 0.3081


def test_missing_file_names_size_checksum_and_source(tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        load_mnist(tmp_path)
    text = str(caught.value)
    assert str(tmp_path / TRAIN_IMAGES.name) in text
    for part in ("No such file", "47,040,016 bytes unpacked", TRAIN_IMAGES.md5, "https://"):
        assert part in text


def damaged(kind: str) -> tuple[bytes, str]:
    """Packed bytes with one kind of damage, and what the error says about it."""
    good = raw()
    if kind == "not gzip":
        return b"plain text", "do not unpack"
    if kind == "cut":
        return gzip.compress(good)[:-9], "do not unpack"
    if kind == "flipped bit in the stream":
        packed = bytearray(gzip.compress(good))
        packed[-1] ^= 1
        return bytes(packed), "do not unpack"
    if kind == "empty":
        return gzip.compress(b""), "magic nothing, expected 00000803"
    if kind == "type":
        return gzip.compress(raw(kind=0x0D)), "magic 00000d03, expected 00000803"
    if kind == "dimensions":
        return gzip.compress(raw((12,))), "magic 00000801, expected 00000803"
    if kind == "short header":
        return gzip.compress(good[:10]), "a header of 10 bytes, expected 16 bytes"
    if kind == "shape":
        return gzip.compress(raw((3, 4, 1))), "shape (3, 4, 1), expected (3, 2, 2)"
    if kind == "short":
        return gzip.compress(good[:-1]), "unpacked size 27 bytes, expected 28 bytes"
    return gzip.compress(good[:-1] + b"\xff"), "MD5 "


@pytest.mark.parametrize(
    "kind",
    [
        "not gzip", "cut", "flipped bit in the stream", "empty", "type", "dimensions",
        "short header", "shape", "short", "pixel",
    ],
)  # fmt: skip
def test_damage_is_named(tmp_path: Path, kind: str) -> None:
    packed, says = damaged(kind)
    (tmp_path / "tiny.gz").write_bytes(packed)
    file = wanted(raw())
    with pytest.raises(DataError) as caught:
        read_idx(file, tmp_path)
    assert says in str(caught.value)
    assert str(tmp_path / "tiny.gz") in str(caught.value)
    assert file.describe() in str(caught.value)


def test_other_folder_is_read(tmp_path: Path) -> None:
    for path in DATA.glob("*.gz"):
        (tmp_path / path.name).symlink_to(path)
    assert len(load_mnist(tmp_path)[3]) == TEST_LABELS.shape[0]
