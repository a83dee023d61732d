// Compiled with AVX2: no std:: templates and no shared non-static functions here, as the linker may
// keep the AVX2 copy of those for the portable path.
#include <immintrin.h>

#include "fogzo/noise.h"
#include "tile.h"

namespace fogzo {
namespace {

inline __m256i splat(uint32_t value) { return _mm256_set1_epi32(static_cast<int>(value)); }

inline __m256i high_of(__m256i product) { return _mm256_shuffle_epi32(product, 0xF5); }

inline __m256i three_xor(__m256i a, __m256i b, __m256i c) { return _mm256_xor_si256(_mm256_xor_si256(a, b), c); }

// Philox of the blocks in the low halves of 4 lanes of 64 bits. The high halves hold what is left of
// products: a multiplication reads the low halves alone, so nothing needs to clear them.
struct Quad {
    __m256i c0;
    __m256i c1;
    __m256i c2;
    __m256i c3;
};

// What all blocks of a tile have in common: keys, and the product that starts from the step alone.
struct Schedule {
    __m256i key0[kPhiloxRounds];
    __m256i key1[kPhiloxRounds];
    __m256i factor0;
    __m256i factor1;
};

inline Schedule make_schedule(Stream stream) {
    Schedule s;
    uint32_t key0[kPhiloxRounds];
    uint32_t key1[kPhiloxRounds];
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint32_t turn = static_cast<uint32_t>(round);
        key0[round] = static_cast<uint32_t>(stream.seed) + turn * kPhiloxWeyl0;
        key1[round] = static_cast<uint32_t>(stream.seed >> 32) + turn * kPhiloxWeyl1;
        s.key0[round] = splat(key0[round]);
        s.key1[round] = splat(key1[round]);
    }
    const uint64_t first = static_cast<uint64_t>(kPhiloxMul1) * stream.step;
    const uint32_t word0 = static_cast<uint32_t>(first >> 32) ^ stream.probe ^ key0[0];
    const uint64_t next = static_cast<uint64_t>(kPhiloxMul0) * word0;
    s.key1[0] = splat(stream.tensor ^ key1[0]);
    s.key0[1] = splat(static_cast<uint32_t>(first) ^ key0[1]);
    s.key1[1] = splat(static_cast<uint32_t>(next >> 32) ^ key1[1]);
    s.key1[2] = splat(static_cast<uint32_t>(next) ^ key1[2]);
    s.factor0 = splat(kPhiloxMul0);
    s.factor1 = splat(kPhiloxMul1);
    return s;
}

// Rounds 1 to 6. Words that all blocks share have been folded into the keys of rounds 1 to 3.
inline Quad six_rounds(__m256i block, const Schedule& s) {
    const __m256i p = _mm256_mul_epu32(block, s.factor0);
    __m256i c2 = _mm256_xor_si256(high_of(p), s.key1[0]);
    const __m256i q = _mm256_mul_epu32(c2, s.factor1);
    __m256i c0 = _mm256_xor_si256(high_of(q), s.key0[1]);
    __m256i c1 = q;
    c2 = _mm256_xor_si256(p, s.key1[1]);
    __m256i c3 = _mm256_setzero_si256();
    for (int round = 2; round < kPhiloxRounds - 1; ++round) {
        const __m256i p0 = _mm256_mul_epu32(c0, s.factor0);
        const __m256i p1 = _mm256_mul_epu32(c2, s.factor1);
        c0 = three_xor(high_of(p1), c1, s.key0[round]);
        c2 = round == 2 ? _mm256_xor_si256(high_of(p0), s.key1[2]) : three_xor(high_of(p0), c3, s.key1[round]);
        c1 = p1;
        c3 = p0;
    }
    return {c0, c1, c2, c3};
}

// The low halves of even and odd lanes side by side.
inline __m256i low_halves(__m256i even, __m256i odd) {
    return _mm256_blend_epi32(even, _mm256_slli_epi64(odd, 32), 0xAA);
}

inline __m256i high_halves(__m256i even, __m256i odd) {
    return _mm256_blend_epi32(_mm256_srli_epi64(even, 32), odd, 0xAA);
}

void words(Stream stream, uint32_t first_block, uint32_t* out) {
    const Schedule s = make_schedule(stream);
    __m256i block = _mm256_add_epi32(splat(first_block), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    for (int i = 0; i < kLanes; i += 8) {
        const Quad even = six_rounds(block, s);
        const Quad odd = six_rounds(_mm256_srli_epi64(block, 32), s);
        const __m256i even0 = _mm256_mul_epu32(even.c0, s.factor0);
        const __m256i even1 = _mm256_mul_epu32(even.c2, s.factor1);
        const __m256i odd0 = _mm256_mul_epu32(odd.c0, s.factor0);
        const __m256i odd1 = _mm256_mul_epu32(odd.c2, s.factor1);
        constexpr int last = kPhiloxRounds - 1;
        const __m256i result[4] = {
            three_xor(high_halves(even1, odd1), low_halves(even.c1, odd.c1), s.key0[last]), low_halves(even1, odd1),
            three_xor(high_halves(even0, odd0), low_halves(even.c3, odd.c3), s.key1[last]), low_halves(even0, odd0)};
        for (int w = 0; w < 4; ++w) {
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + w * kLanes + i), result[w]);
        }
        block = _mm256_add_epi32(block, splat(8));
    }
}

// z is held as the integer 32768 * (2h - 65535), exact in float32; it comes from the half by one
// shift or mask and by turning over the bits of h - 32768 and of the odd unit.
inline __m256i odd_of_low(__m256i word) { return _mm256_xor_si256(_mm256_slli_epi32(word, 16), splat(0x80008000u)); }

inline __m256i odd_of_high(__m256i word) {
    return _mm256_xor_si256(_mm256_and_si256(word, splat(0xFFFF0000u)), splat(0x80008000u));
}

constexpr float kUnit = 1.0f / 2147483648.0f;  // z of the integer 1

template <int surrogate> inline __m256 noise_of(__m256i odd, const float* table, __m256 factor) {
    if constexpr (surrogate == kIdentity || surrogate == kHardtanh) {
        return _mm256_mul_ps(_mm256_cvtepi32_ps(odd), factor);
    }
    const __m256 sign = _mm256_and_ps(_mm256_castsi256_ps(odd), _mm256_set1_ps(-0.0f));
    __m256 magnitude;
    if constexpr (surrogate == kTanh) {
        const __m256i k = _mm256_srli_epi32(_mm256_abs_epi32(odd), 16);
        magnitude = _mm256_i32gather_ps(table, k, 4);
    } else {
        const __m256 one = _mm256_set1_ps(1.0f);
        const __m256 z = _mm256_mul_ps(_mm256_cvtepi32_ps(_mm256_abs_epi32(odd)), _mm256_set1_ps(kUnit));
        magnitude = _mm256_sub_ps(one, _mm256_sqrt_ps(_mm256_sub_ps(one, z)));
    }
    return _mm256_mul_ps(_mm256_or_ps(magnitude, sign), factor);
}

template <int surrogate> void published_as(const uint32_t* in, const float* table, float across, float* out) {
    const __m256 factor = _mm256_set1_ps(across);
    for (int w = 0; w < 4; ++w) {
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i word = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(in + w * kLanes + i));
            float* at = out + 2 * w * kLanes + i;
            _mm256_storeu_ps(at, noise_of<surrogate>(odd_of_low(word), table, factor));
            _mm256_storeu_ps(at + kLanes, noise_of<surrogate>(odd_of_high(word), table, factor));
        }
    }
}

// Powers of two go into B where that is exact, that is unless B would leave the normal range.
void published(const uint32_t* in, int surrogate, const float* table, float across, float* out) {
    const bool exact = across == 0.0f || across >= 1.0e-18f;
    if (surrogate == kTanh) {
        published_as<kTanh>(in, table, across, out);
    } else if (surrogate == kApproxSign) {
        published_as<kApproxSign>(in, table, across, out);
    } else if (!exact) {
        kScalarTile.published(in, surrogate, table, across, out);
    } else if (surrogate == kHardtanh) {
        published_as<kHardtanh>(in, table, across * kUnit, out);
    } else {
        published_as<kIdentity>(in, table, across * (0.5f * kUnit), out);
    }
}

void rademacher(const uint32_t* in, int first_bit, float magnitude, float* out) {
    const __m256i bits = _mm256_castps_si256(_mm256_set1_ps(magnitude));
    const __m256i top = splat(0x80000000u);
    for (int j = 0; j < kTileBits; ++j) {
        const int bit = first_bit + j;
        const uint32_t* word = in + (bit >> 5) * kLanes;
        const __m128i to_top = _mm_cvtsi32_si128(31 - (bit & 31));
        for (int i = 0; i < kLanes; i += 8) {
            const __m256i lanes = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(word + i));
            const __m256i sign = _mm256_and_si256(_mm256_sll_epi32(lanes, to_top), top);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + j * kLanes + i), _mm256_xor_si256(bits, sign));
        }
    }
}

}  // namespace

const TileKernels kAvx2Tile = {words, published, rademacher};

}  // namespace fogzo
