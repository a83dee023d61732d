// How packed codes become operands of tensor cores in registers, and x is put into the same order.
//
// The order of k inside a product is free as long as both operands agree. A thread holds 16 neighbouring k of a
// row, k = 16 t .. 16 t + 15 of 64 for thread t of its four, of x as of the codes: their bytes are whole words,
// and x is permuted to the order that a word of codes falls apart in.
#pragma once
#include "probe_matmul_job.h"
#include "ptx.cuh"

namespace fogzo {

constexpr int kHeld = 16;  // neighbouring k of a row that a thread holds

// The codes of kHeld k in 2 * bits bytes.
template <int bits> struct CodeWords {
    uint32_t word[bits == 8 ? 4 : bits == 4 ? 2 : 1];
};

template <int bits> __device__ __forceinline__ CodeWords<bits> load_codes(const unsigned char* at) {
    CodeWords<bits> w;
    if constexpr (bits == 8) {
        const Bytes16 b = *reinterpret_cast<const Bytes16*>(at);
        w.word[0] = b.word[0];
        w.word[1] = b.word[1];
        w.word[2] = b.word[2];
        w.word[3] = b.word[3];
    } else if constexpr (bits == 4) {
        const Bytes8 b = *reinterpret_cast<const Bytes8*>(at);
        w.word[0] = b.word[0];
        w.word[1] = b.word[1];
    } else if constexpr (bits == 2) {
        w.word[0] = *reinterpret_cast<const uint32_t*>(at);
    } else {
        w.word[0] = *reinterpret_cast<const uint16_t*>(at);
    }
    return w;
}

__device__ __forceinline__ uint32_t bytes_of(const OperandRule& rule, uint32_t codes) {
    return (codes * rule.mul + rule.add) ^ 0x80808080u;
}

// q of 16 codes as int8, four a word, in the order of arrange_s8. Instructions for 16 codes: 1 bit 11, 2 bits 9,
// 4 bits 14, 8 bits 12. With one or two bits a code is the number of a byte of a table, and permuting the table's
// bytes looks four of them up; the codes need no place of their own but one of a word's nibbles.
template <int bits>
__device__ __forceinline__ void decode_s8(const OperandRule& rule, const CodeWords<bits>& w, uint32_t (&q)[4]) {
    if constexpr (bits == 8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            q[i] = bytes_of(rule, w.word[i] & rule.mask);
        }
    } else if constexpr (bits == 4) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
            q[2 * i] = bytes_of(rule, w.word[i] & 0x0F0F0F0Fu);
            q[2 * i + 1] = bytes_of(rule, (w.word[i] >> 4) & 0x0F0F0F0Fu);
        }
    } else if constexpr (bits == 2) {
        const uint32_t even = w.word[0] & 0x33333333u;
        const uint32_t odd = (w.word[0] >> 2) & 0x33333333u;
        q[0] = permute_bytes(rule.table, 0, even);
        q[1] = permute_bytes(rule.table, 0, odd);
        q[2] = permute_bytes(rule.table, 0, even >> 16);
        q[3] = permute_bytes(rule.table, 0, odd >> 16);
    } else {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            q[i] = permute_bytes(rule.table, 0, (w.word[0] >> i) & 0x1111u);
        }
    }
}

// x of 16 k, four a word: every word of it holds the k of one word that decode_s8 makes.
template <int bits> __device__ __forceinline__ void arrange_s8(const Bytes16& x, uint32_t (&a)[4]) {
    if constexpr (bits == 8) {
#pragma unroll
        for (int i = 0; i < 4; ++i) {
            a[i] = x.word[i];
        }
    } else if constexpr (bits == 1) {  // word i: k = i, i + 4, i + 8, i + 12
        const uint32_t low01 = permute_bytes(x.word[0], x.word[1], 0x5140);
        const uint32_t high01 = permute_bytes(x.word[0], x.word[1], 0x7362);
        const uint32_t low23 = permute_bytes(x.word[2], x.word[3], 0x5140);
        const uint32_t high23 = permute_bytes(x.word[2], x.word[3], 0x7362);
        a[0] = permute_bytes(low01, low23, 0x5410);
        a[1] = permute_bytes(low01, low23, 0x7632);
        a[2] = permute_bytes(high01, high23, 0x5410);
        a[3] = permute_bytes(high01, high23, 0x7632);
    } else {  // the even and the odd k of eight
#pragma unroll
        for (int i = 0; i < 4; i += 2) {
            a[i] = permute_bytes(x.word[i], x.word[i + 1], 0x6420);
            a[i + 1] = permute_bytes(x.word[i], x.word[i + 1], 0x7531);
        }
    }
}

// Word i of eight that decode_bf16 makes holds k = first_k(i) and first_k(i) + distance.
template <int bits> constexpr int distance_k = bits == 8 ? 2 : bits == 4 ? 4 : 8;
template <int bits> __device__ constexpr int first_k(int i) {
    return bits == 8 ? i / 2 * 4 + i % 2 : bits == 4 ? i / 4 * 8 + i % 4 : i;
}

// Bits of two codes at bit `place` and 16 above, as the bfloat16 numbers 16 + code.
__device__ __forceinline__ uint32_t codes_plus_16(uint32_t word, int place, uint32_t codes) {
    const uint32_t there = place < 3 ? word << (3 - place) : word >> (place - 3);
    return (there & (codes << 3)) | 0x41804180u;
}

// q of codes at bit `place` and 16 above as bfloat16 numbers. 16 + code is put together from bits (the mantissa's
// lowest bit is 1/8 there), then one multiply-add that is exact; codes of eight bits by their nibbles.
template <int bits> __device__ __forceinline__ uint32_t pair_bf16(const OperandRule& rule, uint32_t word, int place) {
    if constexpr (bits == 8) {
        const uint32_t minus16 = 0xC180C180u;
        const uint32_t one = 0x3F803F80u;
        const uint32_t low = fma_bf16x2(codes_plus_16(word, place, 0x000F000Fu), one, minus16);
        const uint32_t high = fma_bf16x2(codes_plus_16(word, place + 4, 0x000F000Fu), one, minus16);
        return fma_bf16x2(low, rule.factor, fma_bf16x2(high, rule.factor16, rule.offset0));
    } else {
        constexpr uint32_t codes = ((1u << bits) - 1u) * 0x00010001u;
        return fma_bf16x2(codes_plus_16(word, place, codes), rule.factor, rule.offset);
    }
}

// q of 16 codes as bfloat16 numbers, two a word. Instructions for 16 codes: 1 bit 25, 2 and 4 bits 24, 8 bits 64.
template <int bits>
__device__ __forceinline__ void decode_bf16(const OperandRule& rule, const CodeWords<bits>& w, uint32_t (&q)[8]) {
#pragma unroll
    for (int i = 0; i < 8; ++i) {
        if constexpr (bits == 8) {
            q[i] = pair_bf16<bits>(rule, w.word[i / 2], i % 2 * 8);
        } else if constexpr (bits == 4) {
            q[i] = pair_bf16<bits>(rule, w.word[i / 4], i % 4 * 4);
        } else if constexpr (bits == 2) {
            q[i] = pair_bf16<bits>(rule, w.word[0], i * 2);
        } else {
            q[i] = pair_bf16<bits>(rule, permute_bytes(w.word[0], 0, 0x4140), i);
        }
    }
}

// Operands of product s of four from two rows of x, two bfloat16 numbers a word, in the order of decode_bf16.
template <int bits> __device__ __forceinline__ void pairs_bf16(const Bytes16 (&x)[2][2], int s, uint32_t (&a)[4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int k = first_k<bits>(2 * s + i / 2);
        const int other = k + distance_k<bits>;
        a[i] = permute_bytes(x[i % 2][k / 8].word[k % 8 / 2], x[i % 2][other / 8].word[other % 8 / 2],
                             k % 2 == 0 ? 0x5410 : 0x7632);
    }
}

// x as the exact sum of three numbers whose lower halves are zero: bfloat16 numbers. An infinite x leaves no rest.
__device__ __forceinline__ void split_in_three(float x, uint32_t (&part)[3]) {
    part[0] = as_bits(x) & 0xFFFF0000u;
    const float rest = part[0] == as_bits(x) ? 0.0f : x - as_float(part[0]);
    part[1] = as_bits(rest) & 0xFFFF0000u;
    part[2] = as_bits(rest - as_float(part[1]));
}

// Operands of product s of four from two rows of x: parts 0, 1 and 2 of their numbers, in the order of decode_bf16.
template <int bits> __device__ __forceinline__ void split_pairs(const Bytes16 (&x)[2][4], int s, uint32_t (&a)[3][4]) {
#pragma unroll
    for (int i = 0; i < 4; ++i) {
        const int k = first_k<bits>(2 * s + i / 2);
        const int other = k + distance_k<bits>;
        uint32_t low[3];
        uint32_t high[3];
        split_in_three(as_float(x[i % 2][k / 4].word[k % 4]), low);
        split_in_three(as_float(x[i % 2][other / 4].word[other % 4]), high);
#pragma unroll
        for (int part = 0; part < 3; ++part) {
            a[part][i] = permute_bytes(low[part], high[part], 0x7632);
        }
    }
}

}  // namespace fogzo
