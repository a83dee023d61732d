"""What is expected of each CUDA kernel in csrc/cuda, and what one call has to do.

A kernel that is compiled and not in TABLE, or in TABLE and not compiled, is a finding.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from fogzo_kernels import _dispatch

from ._static_work import PROBES, PRODUCTS, TOKENS, WEIGHTS, Work

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


def weights(each: float, span: int, steps: int = 1, probes: int = 0) -> Callable[..., list[Work]]:
    """A pass over all weights, ``each`` bytes for one; a block goes over span of them in steps."""
    shape = f"{WEIGHTS >> 20}M weights" + (f", {probes} probes" if probes else "")
    job = Work(shape, each * WEIGHTS, 0, "", WEIGHTS, -(-WEIGHTS // span), steps)
    return lambda arguments: [job]


def probed(each: Callable[[int], float]) -> Callable[[Arguments], list[Work]]:
    """The same by the number of probes, over which a block of four tiles loops."""
    jobs = [weights(each(n), 4 * 1024, n, n) for n in (1, 4)]
    return lambda arguments: [job for some in jobs for job in some(arguments)]


def packed(arguments: Arguments) -> list[Work]:
    """Between codes and bytes: 16 codes a thread."""
    return weights(1 + int(arguments[0]) / 8, 16 * 128)(arguments)


def activation(arguments: Arguments) -> list[Work]:
    """float32 to a byte; a block's loop over rows takes 4 elements a thread."""
    rows, width = TOKENS
    count = rows * width
    return [Work(f"{rows} x {width}", 5.0 * count, 0, "", count, count // (4 * 128), 1)]


def nothing(arguments: Arguments) -> list[Work]:
    """Second stages, and paths for shapes that no bar is set for."""
    return []


def of_eight_bits(arguments: Arguments) -> int:
    return int(arguments == ("8",))


@dataclass(frozen=True)
class Product:
    """An instance of a kernel of probe_matmul, out of its template's arguments; sizes as there."""

    x_bytes: int  # of an element of x
    bits: int
    block_m: int
    block_n: int
    parts: int = 2  # that its loop takes of a stage, one after the other

    @staticmethod
    def of(arguments: Arguments) -> Product:
        shape = [int(number) for number in re.findall(r"\d+", arguments[2])]
        return Product((4, 2, 1)[int(arguments[0])], int(arguments[1]), *shape[:2])

    @staticmethod
    def of_warpgroups(arguments: Arguments) -> Product:
        grouped = re.search(r"<(true|1)>", arguments[2]) is not None
        x_bytes, bits = (4, 2, 1)[int(arguments[0])], int(arguments[1])
        return Product(x_bytes, bits, 128, 128 if grouped else 256, 1)

    def shared(self, most: int = 96 * 1024, beside: int = 0) -> int:
        stage = STEP * (self.block_m * self.x_bytes + self.block_n * self.bits // 8)
        return min(4, (most - beside) // stage) * stage + beside

    def work(self) -> Work:
        m, n, k = PRODUCTS["few" if self.block_m == 16 else "many"]
        w = PROBES * n * k * self.bits / 8
        moved = m * k * self.x_bytes + w + PROBES * m * n * (2 if self.x_bytes == 2 else 4)
        count = PROBES * m * n * k
        times = 3 if self.x_bytes == 4 else 1  # three bfloat16 products
        tiles = PROBES * -(-m // self.block_m) * -(-n // self.block_n)
        shape, kind = f"{PROBES} sides, {m} x {n} x {k}", "int8" if self.x_bytes == 1 else "half"
        return Work(shape, moved, 2.0 * count * times, kind, count, tiles, self.parts * k // STEP)


STEP = 128  # k that a stage of probe_matmul holds
# stores16 stands where it holds on every architecture: for sm_80 and sm_90a ptxas joins the wide
# store of larger kernels with the narrow ones of ragged edges.
FOUR = 4 * 128  # elements of a block's pass: four neighbours a thread

TABLE = {
    "noise_kernel": Expected("noise", weights(4.0, 1024)),  # a thread's elements lie 128 apart
    "quantize_kernel": Expected("quantize", weights(5.0, FOUR), loads16=1),
    "dequantize_kernel": Expected("quantize", weights(5.0, FOUR), stores16=1),
    "pack_kernel": Expected("pack", packed, loads16=1, stores16=of_eight_bits),
    "unpack_kernel": Expected("pack", packed, loads16=of_eight_bits, stores16=1),
    "pack_rows_kernel": Expected("pack", nothing),  # rows that end inside a byte
    "unpack_rows_kernel": Expected("pack", nothing),
    "fake_quantize_kernel": Expected("fake_quantize", weights(8.0, FOUR), loads16=1, stores16=1),
    "fake_quantize_backward_kernel": Expected("fake_quantize", weights(12.0, FOUR), loads16=2),
    "scale_gradient_kernel": Expected("fake_quantize", nothing),
    "whitened_norm_part_kernel": Expected("whitened_norm", weights(4.0, 32 * FOUR, 32), loads16=1),
    "whitened_norm_total_kernel": Expected("whitened_norm", nothing),
    # Times are those of two sides packed in two bits.
    "perturb_quantize_kernel": Expected(
        "perturb_quantize", probed(lambda n: 8 + 2 * n * 0.25), loads16=2
    ),
    "assemble_gradient_kernel": Expected("assemble_gradient", probed(lambda n: 8.0), loads16=1),
    "count_flips_kernel": Expected("perturb_quantize", weights(2.0, 16 * 256), loads16=2),
    "sum_flips_kernel": Expected("perturb_quantize", nothing),
    "find_flips_kernel": Expected("perturb_quantize", weights(2.0, 16 * 256), loads16=2),
    "hadamard_kernel": Expected("hadamard", weights(8.0, 4096), loads16=1),
    "hadamard_stage_kernel": Expected("hadamard", nothing),  # blocks beyond 4096
    "hadamard_quantize_kernel": Expected("hadamard_quantize", weights(8.0, 4 * 256), loads16=1),
    "probe_matmul_kernel": Expected(
        "probe_matmul",
        lambda arguments: [Product.of(arguments).work()],
        exact=False,
        loads16=2,
        tensor=lambda arguments: "IMMA" if Product.of(arguments).x_bytes == 1 else "HMMA",
        shared=lambda arguments: Product.of(arguments).shared(),
    ),
    "probe_matmul_wgmma_kernel": Expected(
        "probe_matmul",
        lambda arguments: [Product.of_warpgroups(arguments).work()],
        exact=False,
        loads16=2,
        tensor=lambda args: "IGMMA" if Product.of_warpgroups(args).x_bytes == 1 else "HGMMA",
        shared=lambda args: Product.of_warpgroups(args).shared(227 * 1024, 1024),
        architectures=(90,),
    ),
    "probe_matmul_sum_kernel": Expected("probe_matmul", nothing, exact=False),
    "probe_matmul_x_sums_kernel": Expected("probe_matmul", nothing),
    "probe_matmul_pack_x_kernel": Expected("probe_matmul", nothing),  # rows that are not 16-byte
    "probe_matmul_pack_codes_kernel": Expected("probe_matmul", nothing),
    "quantize_activation_kernel": Expected("quantize_activation", activation, loads16=1),
    "sign_activation_kernel": Expected("quantize_activation", activation, loads16=1),
}


def op_of(stem: str) -> str:
    """The operation that a source file of csrc/cuda belongs to.

    Example:
        >>> op_of("flips")
        'perturb_quantize'
    """
    rooms = sorted(set(_dispatch.OPS.values()), key=len)
    return next((room for room in reversed(rooms) if stem.startswith(room)), "perturb_quantize")


def jobs(name: str, arguments: Arguments) -> list[Work]:
    """The calls that a kernel's time is bounded for; none where TABLE does not know it."""
    return TABLE[name].work(arguments) if name in TABLE else []
