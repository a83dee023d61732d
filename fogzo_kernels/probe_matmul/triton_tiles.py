"""Triton kernels of probe_matmul: operands, tiles of the product, and the sum of a split K.

A code stands for q = MUL * code + ADD, an integer with value(code) = UNIT * q that every operand
type holds exactly: doubled where values are half-integers. With int8 x and eight such bits q is
code - 128, and half the sum of x is added (ROW_SUM). So int8 products are exact in int32, and the
other types round in the accumulation only. K is padded with zeros to whole BLOCK_K, each group of a
group scale too.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def unpack(data, BITS: tl.constexpr):
    """Codes [R, C * 8 / BITS] of bytes [R, C], lowest bits first."""
    rows: tl.constexpr = data.shape[0]
    count: tl.constexpr = data.shape[1] * (8 // BITS)
    codes = data
    if BITS <= 4:
        codes = tl.join(codes, codes >> 4)
    if BITS <= 2:
        codes = tl.join(codes, codes >> 2)
    if BITS == 1:
        codes = tl.join(codes, codes >> 1)
    if BITS < 8:
        codes = tl.reshape(codes & ((1 << BITS) - 1), (rows, count))
    return codes


@triton.jit
def operand(q, DOT: tl.constexpr):
    """Integers as the operands of a product."""
    if DOT.primitive_bitwidth == 8 and tl.int8 != DOT:
        q = q.to(tl.float16)  # integers have no way of their own to float8
    return q.to(DOT)


@triton.jit
def operand_kernel(data, operands, rows, groups, width, padded, row_bytes, group_bytes,
                   BITS: tl.constexpr, MUL: tl.constexpr, ADD: tl.constexpr, WHOLE: tl.constexpr,
                   BLOCK_R: tl.constexpr, BLOCK_BYTES: tl.constexpr):  # fmt: skip
    """q of every code: operands [rows, groups, padded] of packed codes [rows, row_bytes].

    A group has width codes, then zeros. Program (rows and group, part of it): only the first axis
    of a grid may be long. WHOLE: groups begin at whole bytes, so these are loaded as they lie.
    """
    group, part = tl.program_id(0) % groups, tl.program_id(1)
    row = (tl.program_id(0) // groups).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    PER: tl.constexpr = 8 // BITS
    BLOCK_K: tl.constexpr = BLOCK_BYTES * PER
    k = part * BLOCK_K + tl.arange(0, BLOCK_K)
    if WHOLE:
        at = part * BLOCK_BYTES + tl.arange(0, BLOCK_BYTES)
        inside = (row < rows)[:, None] & (at < group_bytes)[None, :]
        at = row[:, None] * row_bytes + (group * group_bytes + at)[None, :]
        codes = unpack(tl.load(data + at, mask=inside, other=0), BITS)
    else:
        place = group * width + k
        inside = (row < rows)[:, None] & (k < width)[None, :]
        at = row[:, None] * row_bytes + (place // PER)[None, :]
        codes = (
            tl.load(data + at, mask=inside, other=0) >> (place % PER * BITS).to(tl.uint8)[None, :]
        )
        codes = codes & ((1 << BITS) - 1)
    q = tl.where((k < width)[None, :], codes.to(tl.int32) * MUL + ADD, 0)  # [BLOCK_R, BLOCK_K]
    at = (row[:, None] * groups + group) * padded + k[None, :]
    inside = (row < rows)[:, None] & (k < padded)[None, :]
    tl.store(operands + at, operand(q, operands.dtype.element_ty), mask=inside)


@triton.jit
def leading(x):
    """The first eight significant bits of float32 x: a bfloat16 number."""
    return (x.to(tl.uint32, bitcast=True) & 0xFFFF0000).to(tl.float32, bitcast=True)


@triton.jit
def product(x, w, acc, DOT: tl.constexpr):
    """acc + x @ w.T of x [BLOCK_M, BLOCK_K], w [BLOCK_N, BLOCK_K], one rounding for each addition.

    float32 x is the exact sum of three bfloat16 numbers, each multiplied on tensor cores.
    """
    w = tl.trans(w)
    if x.dtype == tl.float32:
        first = leading(x)
        rest = tl.where(tl.abs(x) == float("inf"), 0.0, x - first)
        second = leading(rest)
        third = (rest - second).to(DOT)
        acc = tl.dot(third, w, acc, input_precision="ieee", out_dtype=acc.dtype)
        acc = tl.dot(second.to(DOT), w, acc, input_precision="ieee", out_dtype=acc.dtype)
        acc = tl.dot(first.to(DOT), w, acc, input_precision="ieee", out_dtype=acc.dtype)
    else:
        # Hopper keeps some 14 bits of a sum of float8 products: no more of them than that at once.
        most: tl.constexpr = min(128, x.shape[1]) if DOT.is_fp8() else None
        acc = tl.dot(x.to(DOT), w, acc, max_num_imprecise_acc=most, out_dtype=acc.dtype)
    return acc


@triton.jit
def first_at_least(index, count, target):
    """Position of the first of count sorted numbers that is >= target: 128 looks at once."""
    low = target * 0
    high = low + count
    while low < high:
        stride = (high - low + 127) // 128
        at = low + tl.arange(0, 128) * stride
        value = tl.load(index + at, mask=at < high, other=0)
        below = tl.sum(((at < high) & (value < target)).to(tl.int32), 0)
        high = tl.minimum(high, low + below * stride)
        low = tl.where(below == 0, high, low + (below - 1) * stride + 1)
    return low


@triton.jit
def flip_sums(x, base, scale, index, code, count, m, n0, m_size, n_size, k_size, width,
              group_size, padded, MUL: tl.constexpr, ADD: tl.constexpr, SCALE: tl.constexpr,
              BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr, FLIPS: tl.constexpr):  # fmt: skip
    """What one side's flips in rows n0 .. n0 + BLOCK_N of the weight add to a tile.

    They are taken FLIPS at a time, in their order. base [n_size, width] holds the codes before;
    x [m_size, k_size] has its groups of group_size padded to padded.
    """
    first = n0.to(tl.int64) * width
    last = tl.minimum(n0 + BLOCK_N, n_size).to(tl.int64) * width
    at = first_at_least(index, count, first)
    sums = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    more = at < count
    while more:
        j = at + tl.arange(0, FLIPS)
        element = tl.load(index + j, mask=j < count, other=last)
        inside = element < last
        n, k = element // width, element % width
        new = tl.load(code + j, mask=inside, other=0).to(tl.int32)
        old = tl.load(base + element, mask=inside, other=0).to(tl.int32)
        delta = (MUL * (new - old)).to(tl.float32)
        if SCALE == 2:
            group = k // group_size
            delta *= tl.load(scale + n * (width // group_size) + group, mask=inside, other=0)
            k = group * padded + k % group_size
        taken = inside[None, :] & (m < m_size)[:, None]
        columns = tl.load(x + m[:, None] * k_size + k[None, :], mask=taken, other=0)
        place = inside[:, None] & ((n - n0)[:, None] == tl.arange(0, BLOCK_N)[None, :])
        weights = tl.where(place, delta[:, None], 0.0)  # [FLIPS, BLOCK_N]
        sums = tl.dot(columns.to(tl.float32), weights, sums, input_precision="ieee")
        at += FLIPS
        more = (at < count) & (tl.max(element, 0) < last)
    return sums


@triton.jit
def finish(sums, y, x_scale, scale, bias, row, n, inside_row, inside_n, at,
           UNIT: tl.constexpr, SCALE: tl.constexpr, X_SCALE: tl.constexpr,
           BIAS: tl.constexpr):  # fmt: skip
    """Write UNIT * a[n] * x_scale[row] * sums + bias[n] at the places ``at``, [rows, n]."""
    sums *= UNIT
    if SCALE == 0:
        sums *= tl.load(scale)
    elif SCALE == 1:
        sums *= tl.load(scale + n, mask=inside_n, other=0)[None, :]
    if X_SCALE:
        sums *= tl.load(x_scale + row, mask=inside_row, other=0)[:, None]
    if BIAS:
        sums += tl.load(bias + n, mask=inside_n, other=0).to(tl.float32)[None, :]
    inside = inside_row[:, None] & inside_n[None, :]
    tl.store(y + at, sums.to(y.dtype.element_ty), mask=inside)


@triton.jit(do_not_specialize=["m_size", "width", "steps_a_split"])
def tile_kernel(x, x_scale, w, scale, bias, y, base, index, code, count,
                m_size, n_size, columns, k_size, width, group_size, padded, flip_sides, w_pitch,
                row_bytes, steps_a_split, capacity,
                BITS: tl.constexpr, MUL: tl.constexpr, ADD: tl.constexpr, UNIT: tl.constexpr,
                ROW_SUM: tl.constexpr, SCALE: tl.constexpr, X_SCALE: tl.constexpr,
                BIAS: tl.constexpr, SPLIT: tl.constexpr, FLIPS: tl.constexpr,
                DOT: tl.constexpr, BLOCK_M: tl.constexpr, BLOCK_N: tl.constexpr,
                BLOCK_K: tl.constexpr, GROUP_M: tl.constexpr):  # fmt: skip
    """One tile of y: program (tile, share of K, batch).

    x [batches, m_size, k_size]; w [columns, row_bytes] of each batch (w_pitch apart): operands
    where BITS is 0, else packed codes. Column c is output n = c % n_size of side c // n_size, so a
    tile of x serves every side. SPLIT: y is float32 [splits, sides, m, n], sums before the scales.
    SCALE: 0 tensor, 1 channel, 2 group.
    """
    ACC: tl.constexpr = tl.int32 if tl.int8 == DOT else tl.float32
    # Programs of GROUP_M tiles of rows run side by side, so that their weights stay in the cache.
    tiles_m, tiles_n = tl.cdiv(m_size, BLOCK_M), tl.cdiv(columns, BLOCK_N)
    tile = tl.program_id(0)
    group = tile // (GROUP_M * tiles_n)
    tall = tl.minimum(tiles_m - group * GROUP_M, GROUP_M)
    m0 = (group * GROUP_M + tile % (GROUP_M * tiles_n) % tall) * BLOCK_M
    n0 = tile % (GROUP_M * tiles_n) // tall * BLOCK_N
    split, batch = tl.program_id(1).to(tl.int64), tl.program_id(2).to(tl.int64)
    x += batch * m_size * k_size
    w += batch * w_pitch
    if X_SCALE:
        x_scale += batch * m_size
    m = m0.to(tl.int64) + tl.arange(0, BLOCK_M)
    c = n0.to(tl.int64) + tl.arange(0, BLOCK_N)
    x_rows = x + tl.minimum(m, m_size - 1)[:, None] * k_size
    w_rows = w + tl.minimum(c, columns - 1)[:, None] * row_bytes

    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32 if SCALE == 2 else ACC)
    x_sums = tl.zeros((BLOCK_M,), tl.int32)
    steps_a_group, groups = padded // BLOCK_K, k_size // padded
    first = split.to(tl.int32) * steps_a_split
    for step in range(first, tl.minimum(first + steps_a_split, steps_a_group * groups)):
        k = step * BLOCK_K + tl.arange(0, BLOCK_K)
        x_tile = tl.load(x_rows + k[None, :])
        if BITS == 0:
            w_tile = tl.load(w_rows + k[None, :])
        else:
            PER: tl.constexpr = 8 // BITS
            byte = step * (BLOCK_K // PER) + tl.arange(0, BLOCK_K // PER)
            codes = unpack(tl.load(w_rows + byte[None, :]), BITS)
            if tl.int8 == DOT:
                w_tile = codes.to(tl.int8, bitcast=True) * MUL + ADD
            else:
                w_tile = operand(codes.to(tl.int16) * MUL + ADD, DOT)
        if SCALE == 2:
            part = product(x_tile, w_tile, tl.zeros((BLOCK_M, BLOCK_N), ACC), DOT).to(tl.float32)
            if ROW_SUM:
                part += 0.5 * tl.sum(x_tile.to(tl.int32), 1).to(tl.float32)[:, None]
            at = tl.minimum(c, columns - 1) % n_size * groups + step // steps_a_group
            acc += part * tl.load(scale + at)[None, :]
        else:
            acc = product(x_tile, w_tile, acc, DOT)
            if ROW_SUM:
                x_sums += tl.sum(x_tile.to(tl.int32), 1)
    sums = acc.to(tl.float32)  # [BLOCK_M, BLOCK_N]
    if ROW_SUM and SCALE != 2:
        sums += 0.5 * x_sums.to(tl.float32)[:, None]
    n, side = c % n_size, batch + c // n_size
    sides = tl.num_programs(2) * (columns // n_size) * flip_sides
    for extra in range(flip_sides):
        total = sums
        if FLIPS:  # noqa: SIM102  (a constant, and a condition)
            if split == 0:
                own = (batch + extra) * capacity
                total += flip_sums(
                    x, base, scale, index + own, code + own, tl.load(count + batch + extra), m, n0,
                    m_size, n_size, k_size, width, group_size, padded, MUL, ADD, SCALE, BLOCK_M,
                    BLOCK_N, FLIPS,
                )  # fmt: skip
        if SPLIT:
            at = ((split * sides + side + extra) * m_size * n_size + n)[None, :]
            finish(total, y, x_scale, scale, bias, m, n, m < m_size, c < columns,
                   at + m[:, None] * n_size, 1.0, 2, False, False)  # fmt: skip
        else:
            at = ((side + extra) * m_size * n_size + n)[None, :]
            finish(total, y, x_scale, scale, bias, m, n, m < m_size, c < columns,
                   at + m[:, None] * n_size, UNIT, SCALE, X_SCALE, BIAS)  # fmt: skip


@triton.jit(do_not_specialize=["splits", "rows", "x_rows"])
def sum_kernel(parts, x_scale, scale, bias, y, splits, rows, n_size, x_rows,
               UNIT: tl.constexpr, SCALE: tl.constexpr, X_SCALE: tl.constexpr, BIAS: tl.constexpr,
               BLOCK_R: tl.constexpr, BLOCK_N: tl.constexpr):  # fmt: skip
    """y [rows, n_size] from parts [splits, rows, n_size], added in the order of the splits."""
    row = tl.program_id(0).to(tl.int64) * BLOCK_R + tl.arange(0, BLOCK_R)
    n = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    at = row[:, None] * n_size + n[None, :]
    inside = (row < rows)[:, None] & (n < n_size)[None, :]
    sums = tl.zeros((BLOCK_R, BLOCK_N), tl.float32)
    for _ in range(splits):
        sums += tl.load(parts + at, mask=inside, other=0)
        parts += rows.to(tl.int64) * n_size
    finish(sums, y, x_scale, scale, bias, row % x_rows, n, row < rows, n < n_size, at,
           UNIT, SCALE, X_SCALE, BIAS)  # fmt: skip
