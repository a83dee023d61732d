// Compiled with AVX2: no std:: templates and no shared non-static functions here.
#include "avx2.h"
#include "fogzo/pack.h"
#include "kernels.h"

namespace fogzo {
namespace {

inline __m256i load(const uint8_t* bytes) { return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(bytes)); }

template <bool sign> inline __m256i two_positions(const float* w, __m256 inverse, __m256 shift) {
    const __m256 x0 = _mm256_mul_ps(_mm256_loadu_ps(w), inverse);
    const __m256 x1 = _mm256_mul_ps(_mm256_loadu_ps(w + kVector), inverse);
    return _mm256_packs_epi32(position_of<sign>(x0, shift), position_of<sign>(x1, shift));
}

template <bool sign> inline void quantize_group(const float* w, __m256 inverse, const Grid& grid, uint8_t* codes) {
    const __m256 shift = _mm256_set1_ps(grid.shift);
    const __m256i first = two_positions<sign>(w, inverse, shift);
    const __m256i second = two_positions<sign>(w + 2 * kVector, inverse, shift);
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes),
                        codes_of<sign>(_mm256_packs_epi16(first, second), bytes_of(grid.low), bytes_of(grid.high)));
}

template <bool sign> void quantize_as(const float* w, int n, float inverse, const Grid& grid, uint8_t* codes) {
    const __m256 factor = _mm256_set1_ps(inverse);
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        quantize_group<sign>(w + i, factor, grid, codes + i);
    }
    if (i < n) {
        float rest[kGroup] = {};
        __builtin_memcpy(rest, w + i, sizeof(float) * static_cast<size_t>(n - i));
        quantize_group<sign>(rest, factor, grid, codes + i);
    }
}

void quantize(const float* w, int n, float inverse, const Grid& grid, uint8_t* codes) {
    if (grid.kind == kSign) {
        quantize_as<true>(w, n, inverse, grid, codes);
    } else {
        quantize_as<false>(w, n, inverse, grid, codes);
    }
}

void values(const uint8_t* codes, int n, float a, const Grid& grid, float* out) {
    const __m256 scale = _mm256_set1_ps(a);
    const __m256 step = _mm256_set1_ps(grid.step);
    const __m256 lowest = _mm256_set1_ps(grid.v_min);
    int i = 0;
    for (; i + kVector <= n; i += kVector) {
        const __m128i eight = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(codes + i));
        const __m256 index = _mm256_cvtepi32_ps(_mm256_cvtepu8_epi32(eight));
        const __m256 value = _mm256_add_ps(lowest, _mm256_mul_ps(step, index));
        _mm256_storeu_ps(out + i, _mm256_mul_ps(scale, value));
    }
    for (; i < n; ++i) {
        out[i] = a * value_of(grid, codes[i]);
    }
}

// 32 codes of 1, 2 or 4 bits into 4, 8 or 16 bytes.
template <int bits> inline void pack_group(const uint8_t* codes, uint8_t* bytes) {
    const __m256i group = load(codes);
    if constexpr (bits == 1) {
        const int mask = _mm256_movemask_epi8(_mm256_slli_epi16(group, 7));
        __builtin_memcpy(bytes, &mask, sizeof mask);
    } else if constexpr (bits == 2) {
        const __m256i pairs = _mm256_maddubs_epi16(group, _mm256_set1_epi16(1 + (4 << 8)));
        const __m256i fours = _mm256_madd_epi16(pairs, _mm256_set1_epi32(1 + (16 << 16)));
        const __m256i lowest = _mm256_shuffle_epi8(fours, _mm256_set1_epi32(0x0C080400));
        const __m128i eight = _mm_unpacklo_epi32(_mm256_castsi256_si128(lowest), _mm256_extracti128_si256(lowest, 1));
        _mm_storel_epi64(reinterpret_cast<__m128i*>(bytes), eight);
    } else {
        const __m256i pairs = _mm256_maddubs_epi16(group, _mm256_set1_epi16(1 + (16 << 8)));
        const __m256i packed = _mm256_permute4x64_epi64(_mm256_packus_epi16(pairs, pairs), 0x08);
        _mm_storeu_si128(reinterpret_cast<__m128i*>(bytes), _mm256_castsi256_si128(packed));
    }
}

template <int bits> void pack_as(const uint8_t* codes, int n, uint8_t* bytes) {
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        pack_group<bits>(codes + i, bytes + i * bits / 8);
    }
    pack_codes(codes + i, n - i, bits, bytes + i * bits / 8);
}

void pack(const uint8_t* codes, int n, int bits, uint8_t* bytes) {
    switch (bits) {
    case 1: return pack_as<1>(codes, n, bytes);
    case 2: return pack_as<2>(codes, n, bytes);
    case 4: return pack_as<4>(codes, n, bytes);
    default: __builtin_memcpy(bytes, codes, static_cast<size_t>(n));
    }
}

// 4, 8 or 16 bytes into 32 codes of 1, 2 or 4 bits.
template <int bits> inline void unpack_group(const uint8_t* bytes, uint8_t* codes) {
    __m256i group;
    if constexpr (bits == 1) {
        uint32_t word;
        __builtin_memcpy(&word, bytes, sizeof word);
        const __m256i eight_of_each =
            _mm256_shuffle_epi8(_mm256_set1_epi32(static_cast<int>(word)),
                                _mm256_setr_epi64x(0, 0x0101010101010101, 0x0202020202020202, 0x0303030303030303));
        const __m256i bit = _mm256_set1_epi64x(static_cast<int64_t>(0x8040201008040201u));
        group = _mm256_abs_epi8(_mm256_cmpeq_epi8(_mm256_and_si256(eight_of_each, bit), bit));
    } else if constexpr (bits == 2) {
        const __m256i b = _mm256_cvtepu8_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(bytes)));
        const __m256i halves = _mm256_or_si256(b, _mm256_slli_epi32(b, 6));
        const __m256i all = _mm256_or_si256(halves, _mm256_slli_epi32(halves, 12));
        group = _mm256_and_si256(all, _mm256_set1_epi8(3));
    } else {
        const __m256i b = _mm256_cvtepu8_epi16(_mm_loadu_si128(reinterpret_cast<const __m128i*>(bytes)));
        group = _mm256_and_si256(_mm256_or_si256(b, _mm256_slli_epi16(b, 4)), _mm256_set1_epi8(15));
    }
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(codes), group);
}

template <int bits> void unpack_as(const uint8_t* bytes, int n, uint8_t* codes) {
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        unpack_group<bits>(bytes + i * bits / 8, codes + i);
    }
    unpack_codes(bytes + i * bits / 8, n - i, bits, codes + i);
}

void unpack(const uint8_t* bytes, int n, int bits, uint8_t* codes) {
    switch (bits) {
    case 1: return unpack_as<1>(bytes, n, codes);
    case 2: return unpack_as<2>(bytes, n, codes);
    case 4: return unpack_as<4>(bytes, n, codes);
    default: __builtin_memcpy(codes, bytes, static_cast<size_t>(n));
    }
}

int differing(const uint8_t* codes, const uint8_t* base, int n) {
    int same = 0;
    int i = 0;
    for (; i + kGroup <= n; i += kGroup) {
        same += __builtin_popcount(
            static_cast<unsigned>(_mm256_movemask_epi8(_mm256_cmpeq_epi8(load(codes + i), load(base + i)))));
    }
    const int whole = i;
    int rest = 0;
    for (; i < n; ++i) {
        rest += codes[i] != base[i] ? 1 : 0;
    }
    return whole - same + rest;
}

}  // namespace

const CodeKernels kAvx2Code = {quantize, values, pack, unpack, differing};

}  // namespace fogzo
