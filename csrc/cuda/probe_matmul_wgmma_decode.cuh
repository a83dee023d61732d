// How packed codes become a warpgroup's operand in registers. Its other operand, x, is read from shared memory as it
// lies: k has its natural order. Of every 16 bytes of a row of x thread t of four holds the codes of bytes 4 t ..
// 4 t + 3: four neighbours with int8 x, two with bfloat16. A product takes 32 bytes, so that a thread decodes two words
// of a row of codes, of their half 0 and 1.
#pragma once
#include "probe_matmul_decode.cuh"
#include "wgmma.cuh"

namespace fogzo {

// Where 16 bytes `chunk` of a row of codes in a stage lie, so that the same part of eight rows meets all 32 banks.
template <int bits> __device__ __forceinline__ int code_place(int row, int chunk) {
    return chunk ^ (row * bits / 8 % bits);
}

// `count` bytes, 16 at most, of the row of codes that begins at `row`, from byte `from` on; swizzle: code_place of
// chunk 0.
template <class T> __device__ __forceinline__ T row_bytes(const unsigned char* row, int swizzle, int from) {
    return *reinterpret_cast<const T*>(row + ((from / 16 ^ swizzle) * 16 + from % 16));
}

// Words of the even and of the odd codes of both halves, two bytes of each, to words of each half's four codes.
__device__ __forceinline__ void interleave(uint32_t even, uint32_t odd, uint32_t (&q)[2]) {
    q[0] = permute_bytes(even, odd, 0x5140);
    q[1] = permute_bytes(even, odd, 0x7362);
}

// q of a row's codes for product `part`, 32 k, as int8. Instructions for 8 codes: 1 bit 9, 2 bits 8, 4 bits 12,
// 8 bits 6.
template <int bits>
__device__ __forceinline__ void product_s8(const OperandRule& rule, const unsigned char* row, int swizzle, int part,
                                           int t, uint32_t (&q)[2]) {
    const int from = part * 4 * bits;
    if constexpr (bits == 8) {
        q[0] = bytes_of(rule, row_bytes<uint32_t>(row, swizzle, from + 4 * t) & rule.mask);
        q[1] = bytes_of(rule, row_bytes<uint32_t>(row, swizzle, from + 16 + 4 * t) & rule.mask);
    } else if constexpr (bits == 4) {
        const Bytes16 w = row_bytes<Bytes16>(row, swizzle, from);
        const uint32_t two = 0x10u + 0x22u * static_cast<uint32_t>(t);  // bytes 2 t and 2 t + 1 of eight
        const uint32_t codes =
            permute_bytes(permute_bytes(w.word[0], w.word[1], two), permute_bytes(w.word[2], w.word[3], two), 0x5410);
        interleave(bytes_of(rule, codes & 0x0F0F0F0Fu), bytes_of(rule, (codes >> 4) & 0x0F0F0F0Fu), q);
    } else if constexpr (bits == 2) {
        const Bytes8 w = row_bytes<Bytes8>(row, swizzle, from);
        const uint32_t codes = permute_bytes(w.word[0], w.word[1], 0x40u + 0x11u * static_cast<uint32_t>(t));
        interleave(permute_bytes(rule.table, 0, codes & 0x3333u), permute_bytes(rule.table, 0, (codes >> 2) & 0x3333u),
                   q);
    } else {
        const uint32_t codes = (row_bytes<uint32_t>(row, swizzle, from) >> (4 * t)) & 0x000F000Fu;
        const uint32_t pairs = (codes | codes << 6) & 0x03030303u;
        const uint32_t each = (pairs | pairs << 3) & 0x11111111u;  // a code a nibble
        q[0] = permute_bytes(rule.table, 0, each);
        q[1] = permute_bytes(rule.table, 0, each >> 16);
    }
}

// q of a row's codes for product `part`, 16 k, as bfloat16 numbers.
template <int bits>
__device__ __forceinline__ void product_bf16(const OperandRule& rule, const unsigned char* row, int swizzle, int part,
                                             int t, uint32_t (&q)[2]) {
    const int from = part * 2 * bits;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
        uint32_t codes;  // the two in its lowest bits
        if constexpr (bits == 8) {
            codes = row_bytes<uint16_t>(row, swizzle, from + 8 * half + 2 * t);
        } else if constexpr (bits == 4) {
            codes = row_bytes<uint32_t>(row, swizzle, from + 4 * half) >> (8 * t);
        } else if constexpr (bits == 2) {
            codes = row_bytes<uint32_t>(row, swizzle, from) >> (16 * half + 4 * t);
        } else {
            codes = static_cast<uint32_t>(row_bytes<uint16_t>(row, swizzle, from)) >> (8 * half + 2 * t);
        }
        q[half] = pair_bf16<bits>(rule, permute_bytes(codes, codes << (16 - bits), 0x7610), 0);
    }
}

// Operand a of product `part`: rows `row` and `row` + 8 of codes in a stage, multiples of eight and this thread's g.
template <int x_type, int bits>
__device__ __forceinline__ void product_codes(const OperandRule& rule, const unsigned char* row, int swizzle, int part,
                                              int t, uint32_t (&a)[4]) {
    constexpr int code_row = kStep * bits / 8;
#pragma unroll
    for (int i = 0; i < 2; ++i) {
        uint32_t q[2];
        if constexpr (x_type == kInt8X) {
            product_s8<bits>(rule, row + 8 * i * code_row, swizzle, part, t, q);
        } else {
            product_bf16<bits>(rule, row + 8 * i * code_row, swizzle, part, t, q);
        }
        a[i] = q[0];
        a[2 + i] = q[1];
    }
}

}  // namespace fogzo
