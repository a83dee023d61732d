"""Known answers as literals: what a port in any language has to find (DESIGN section 3)."""

from __future__ import annotations

import decimal
import hashlib

import numpy as np
import oracle
import pytest
import torch
from helpers import assert_same

import fogzo_kernels as fk
from fogzo_kernels import _tables, selftest
from fogzo_kernels._reference import philox

SEED = 0x0123456789ABCDEF
WHERE = {"seed": SEED, "step": 1, "tensor": 2}
OPS = ("noise", "perturb_quantize", "assemble_gradient")
DIGEST = "d5241fa0d0f42ff1"
TABLE_SHA256 = "05f920f8e1a5a85ba6be777df457d9a2093571367712b484740c8e789117ff35"

# The first eight elements of tensor 2 at step 1, probe 3; e u in bins is z / 2, z, ... of these.
HALVES = [61728, 49593, 15979, 33414, 20582, 64636, 23638, 51202]
UNIFORM = [
    "0x1.87e21e0000000p+0", "0x1.c75a7c0000000p-1", "-0x1.c65a240000000p-1",
    "0x1.17f1560000000p-5", "-0x1.49c7a00000000p-1", "0x1.af3bba0000000p+0",
    "-0x1.ee26100000000p-2", "0x1.f2e5f60000000p-1",
]  # fmt: skip
NOISE = {
    "identity": UNIFORM,
    "clipped": UNIFORM,
    "hardtanh": UNIFORM,
    "trust": UNIFORM,
    "tanh": [
        "0x1.892f3e0000000p+0", "0x1.405a160000000p-1", "-0x1.3f7ca20000000p-1",
        "0x1.647afc0000000p-6", "-0x1.b9071c0000000p-2", "0x1.2daa6a0000000p+1",
        "-0x1.4320440000000p-2", "0x1.6765720000000p-1",
    ],
    "approx_sign": [
        "0x1.9d51300000000p+0", "0x1.7b5bd60000000p-1", "-0x1.7a58220000000p-1",
        "0x1.8ddeae0000000p-6", "-0x1.042d4c0000000p-1", "0x1.05966c0000000p+1",
        "-0x1.79e15a0000000p-2", "0x1.a8ad1e0000000p-1",
    ],
}  # fmt: skip
RADEMACHER = [1, -1, -1, 1, 1, 1, 1, 1]
SIGNS = [1, 1, 1, 1, -1, -1, -1, 1, 1, 1, 1, 1, 1, -1, 1, -1]  # of probes 0 .. 15 at step 1
CODES = [  # [side][row], two probes, mid-rise of 2 bits
    ["000000001111", "222333333333"],
    ["000000000112", "222223333333"],
    ["000000001111", "222323333333"],
    ["000000001111", "222233333333"],
]
GRADIENT = [
    "-0x1.34d5d20000000p+0", "0x1.3c4b960000000p+0", "0x1.171c6e0000000p+0", "0x1.5bbdd20000000p+0",
    "0x1.c5e1500000000p-3", "0x1.a450180000000p-3", "-0x1.5ff51a0000000p+0", "0x1.9f3f820000000p-1",
    "0x1.0c0d1a0000000p+0", "0x1.89c3fc0000000p-1", "-0x1.7a192a0000000p+0",
    "-0x1.6832d20000000p+0", "0x1.c755500000000p-2", "-0x1.cf13ac0000000p+1",
    "0x1.15a2ca0000000p+1", "0x1.21dbec0000000p+0", "0x1.8ff3240000000p+1", "0x1.e108500000000p-1",
    "-0x1.4b5d820000000p+0", "-0x1.fcda500000000p-1", "-0x1.d7d2860000000p-1",
    "-0x1.5ccfd40000000p-1", "-0x1.1bdb220000000p-1", "0x1.6aea560000000p+0",
]  # fmt: skip


def inputs():
    """w = (k - 11.5) / 8 (halved in row 1), g = (7 k mod 11 - 5) / 4, a = 1/2 and 1/4."""
    k = np.arange(24)
    w = ((k - 11.5) / 8).astype(np.float32).reshape(2, 12)
    w[1] /= 2
    grad = ((k * 7 % 11 - 5) / 4).astype(np.float32).reshape(2, 12)
    return w, grad, np.array([[0.5], [0.25]], np.float32)


@pytest.mark.parametrize(
    ("seed", "counter", "words"),
    [
        (0, (0, 0, 0, 0), "5f6fb709 0d893f64 4f121f81 4f730a48"),
        (SEED, (1, 2, 3, 4), "d7f818c5 6d8e3c9a 1f39705e 8e92db3e"),
    ],
)
def test_philox(seed, counter, words):
    assert " ".join(f"{word:08x}" for word in oracle.philox(seed, counter)) == words
    arrays = tuple(np.array([c], np.uint64) for c in counter)
    assert " ".join(f"{int(word[0]):08x}" for word in oracle.philox(seed, arrays)) == words
    got = philox.philox4x32((torch.tensor([counter[0]]), *counter[1:]), seed)
    assert " ".join(f"{int(word):08x}" for word in got) == words


@pytest.mark.parametrize("surrogate", NOISE)
def test_noise(backend, surrogate):
    halves = oracle.halves(oracle.numbers((8,)), probe=3, **WHERE)
    assert halves.reshape(-1).tolist() == HALVES
    want = np.array([float.fromhex(text) for text in NOISE[surrogate]], np.float32)
    assert_same(fk.noise((8,), surrogate, probe=3, **WHERE), want)
    got = fk.noise((8,), surrogate, probe=3, noise="rademacher", **WHERE)
    assert got.tolist() == RADEMACHER


def test_codes_of_a_perturbed_tensor(backend):
    arrays = map(torch.from_numpy, inputs())
    got = fk.perturb_quantize(
        *arrays, fk.Grid("mid-rise", 2), "clipped", probes=2, gamma=0.25, norm=1.5, form="codes",
        **WHERE,
    )  # fmt: skip
    assert [["".join(map(str, row)) for row in side] for side in got.tolist()] == CODES


def test_assembled_gradient(backend):
    _, grad, scale = map(torch.from_numpy, inputs())
    got = fk.assemble_gradient(
        grad, scale, torch.tensor([0.5, -0.25]), "clipped", gamma=0.25, norm=1.5, **WHERE
    )
    want = [float.fromhex(text) for text in GRADIENT]
    assert_same(got, np.array(want, np.float32).reshape(2, 12))


def test_probe_signs(backend):
    """With gamma = 0, no grid and w = 0 the two sides are s_i times the guide."""
    one = torch.ones(1)
    got = fk.perturb_quantize(
        torch.zeros(1), one, torch.tensor(1.0), None, "clipped", probes=16, gamma=0.0, norm=1.0,
        sides="plus", **WHERE,
    )  # fmt: skip
    assert got.sign().reshape(-1).tolist() == SIGNS
    assert [oracle.probe_sign(SEED, 1, i) for i in range(16)] == SIGNS


def test_atanh_table():
    """Each entry is atanh((2 k + 1) / 65536) = ln((65537 + 2 k) / (65535 - 2 k)) / 2, rounded."""
    table = _tables.atanh_table()
    data = np.frombuffer(table, np.float32)
    assert hashlib.sha256(data.astype("<f4").tobytes()).hexdigest() == TABLE_SHA256
    with decimal.localcontext() as context:
        context.prec = 25
        for k in (*range(0, 32768, 97), *range(32700, 32768)):
            exact = (decimal.Decimal(65537 + 2 * k) / (65535 - 2 * k)).ln() / 2
            neighbours = [np.nextafter(data[k], np.float32(to)) for to in (0, np.inf)]
            error = abs(decimal.Decimal(float(data[k])) - exact)
            assert all(error <= abs(decimal.Decimal(float(n)) - exact) for n in neighbours), k


def test_selftest_digest(backend):
    assert selftest.digest(backend) == DIGEST


def test_selftest_digest_is_what_its_text_describes():
    """The hash again, from the description of ``selftest.digest`` and the oracle alone."""
    value, case = 0xCBF29CE484222325, 0
    for shape in selftest.SHAPES:
        for grid, surrogate in selftest.PAIRS:
            for noise in ("published", "rademacher"):
                place = {"seed": SEED, "step": case, "offset": case, "row_pitch": shape[1] + case}
                w, grad = (
                    2 * oracle.noise(shape, "identity", tensor=0, probe=p, **place) for p in (0, 1)
                )
                rows = np.arange(shape[0], dtype=np.float32)[:, None]
                scale = (rows % 3 + 1) / 4 if case % 2 else np.array(0.5)
                sides = oracle.perturbed(
                    w, grad, scale.astype(np.float32), surrogate, noise, 2, 0,
                    tensor=1, gamma=0.25, norm=8.0, **place,
                )  # fmt: skip
                for byte in oracle.quantized_sides(sides, grid.kind, grid.bits, shape).tobytes():
                    value = (value ^ byte) * 0x100000001B3 % 2**64
                case += 1
    assert f"{value:016x}" == DIGEST
