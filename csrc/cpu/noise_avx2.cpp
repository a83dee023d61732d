// The only file compiled with AVX2. No std:: templates and no shared non-static functions here: the
// linker may keep the AVX2 copy of those for the portable path.
#include <immintrin.h>

#include "fogzo/noise.h"
#include "tile.h"

namespace fogzo {
namespace {

struct Product {
    __m256i low;
    __m256i high;
};

// 32 x 32 -> 64 bits in each of 8 lanes.
inline Product multiply(__m256i a, __m256i factor) {
    const __m256i even = _mm256_mul_epu32(a, factor);
    const __m256i odd = _mm256_mul_epu32(_mm256_srli_epi64(a, 32), factor);
    return {_mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA),
            _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA)};
}

inline __m256i splat(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }

void words(Stream stream, uint32_t first_block, uint32_t* out) {
    const __m256i factor0 = splat(kPhiloxMul0);
    const __m256i factor1 = splat(kPhiloxMul1);
    const __m256i ramp = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    for (int i = 0; i < kLanes; i += 8) {
        uint32_t key0 = static_cast<uint32_t>(stream.seed);
        uint32_t key1 = static_cast<uint32_t>(stream.seed >> 32);
        __m256i c0 = _mm256_add_epi32(splat(first_block + static_cast<uint32_t>(i)), ramp);
        __m256i c1 = splat(stream.probe);
        __m256i c2 = splat(stream.step);
        __m256i c3 = splat(stream.tensor);
        for (int round = 0; round < kPhiloxRounds; ++round) {
            const Product p0 = multiply(c0, factor0);
            const Product p1 = multiply(c2, factor1);
            c0 = _mm256_xor_si256(_mm256_xor_si256(p1.high, c1), splat(key0));
            c2 = _mm256_xor_si256(_mm256_xor_si256(p0.high, c3), splat(key1));
            c1 = p1.low;
            c3 = p0.low;
            key0 += kPhiloxWeyl0;
            key1 += kPhiloxWeyl1;
        }
        const __m256i block[4] = {c0, c1, c2, c3};
        for (int w = 0; w < 4; ++w) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + w * kLanes + i), block[w]);
        }
    }
}

template <int surrogate> inline __m256 noise_of(__m256i half, const float* table) {
    // [8] odd = 2h - 65535, z = odd / 65536
    const __m256i odd = _mm256_sub_epi32(_mm256_add_epi32(half, half), _mm256_set1_epi32(65535));
    const __m256 sign = _mm256_and_ps(_mm256_castsi256_ps(odd), _mm256_set1_ps(-0.0f));
    if constexpr (surrogate == kTanh) {
        const __m256i k = _mm256_srli_epi32(_mm256_abs_epi32(odd), 1);
        return _mm256_or_ps(_mm256_i32gather_ps(table, k, 4), sign);
    }
    const __m256 z = _mm256_mul_ps(_mm256_cvtepi32_ps(odd), _mm256_set1_ps(1.0f / 65536.0f));
    if constexpr (surrogate == kHardtanh) {
        return z;
    }
    if constexpr (surrogate == kApproxSign) {
        const __m256 one = _mm256_set1_ps(1.0f);
        const __m256 magnitude = _mm256_andnot_ps(_mm256_set1_ps(-0.0f), z);
        return _mm256_or_ps(_mm256_sub_ps(one, _mm256_sqrt_ps(_mm256_sub_ps(one, magnitude))), sign);
    }
    return _mm256_mul_ps(z, _mm256_set1_ps(0.5f));
}

template <int surrogate> void published_as(const uint32_t* in, const float* table, float* out) {
    for (int w = 0; w < 4; ++w) {
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + w * kLanes + i));
            const __m256i low = _mm256_and_si256(word, _mm256_set1_epi32(0xFFFF));
            const __m256i high = _mm256_srli_epi32(word, 16);
            _mm256_storeu_ps(out + 2 * w * kLanes + i, noise_of<surrogate>(low, table));
            _mm256_storeu_ps(out + (2 * w + 1) * kLanes + i, noise_of<surrogate>(high, table));
        }
    }
}

void published(const uint32_t* in, int surrogate, const float* table, float* out) {
    switch (surrogate) {
    case kHardtanh: return published_as<kHardtanh>(in, table, out);
    case kTanh: return published_as<kTanh>(in, table, out);
    case kApproxSign: return published_as<kApproxSign>(in, table, out);
    default: return published_as<kIdentity>(in, table, out);
    }
}

void rademacher(const uint32_t* in, int first_bit, float e, float* out) {
    const __m256i magnitude = _mm256_castps_si256(_mm256_set1_ps(e));
    const __m256i top = splat(0x80000000u);
    for (int j = 0; j < kTileBits; ++j) {
        const int bit = first_bit + j;
        const uint32_t* word = in + (bit >> 5) * kLanes;
        const __m128i to_top = _mm_cvtsi32_si128(31 - (bit & 31));
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word + i));
            const __m256i sign = _mm256_and_si256(_mm256_sll_epi32(lanes, to_top), top);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * kLanes + i), _mm256_xor_si256(magnitude, sign));
        }
    }
}

}  // namespace

const TileKernels kAvx2Tile = {"avx2", words, published, rademacher};

}  // namespace fogzo
