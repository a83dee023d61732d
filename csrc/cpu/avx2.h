// AVX2 pieces that several kernels share. Included by files compiled with -mavx2 only.
#pragma once
#include <immintrin.h>

#include "fogzo/grid.h"

namespace fogzo {

constexpr int kVector = 8;  // floats
constexpr int kGroup = 32;  // elements whose codes fill one vector of bytes

FOGZO_FN __m256i bytes_of(float value) { return _mm256_set1_epi8(static_cast<char>(static_cast<int>(value))); }

// Integers that become a code once they are saturated to bytes and clamped. cvtps rounds half to
// even; it gives the lowest integer for NaN and for what is too large, hence the minimum, which
// keeps a NaN that is its second operand.
template <bool sign> FOGZO_FN __m256i position_of(__m256 y, __m256 shift) {
    if constexpr (sign) {
        return _mm256_castps_si256(_mm256_cmp_ps(y, _mm256_setzero_ps(), _CMP_GE_OQ));
    }
    return _mm256_cvtps_epi32(_mm256_min_ps(_mm256_set1_ps(1024.0f), _mm256_sub_ps(y, shift)));
}

// Of four vectors of positions, packed twice.
template <bool sign> FOGZO_FN __m256i codes_of(__m256i positions, __m256i low, __m256i high) {
    const __m256i bytes = _mm256_permutevar8x32_epi32(positions, _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7));
    if constexpr (sign) {
        return _mm256_abs_epi8(bytes);  // a true comparison is -1
    }
    return _mm256_sub_epi8(_mm256_max_epi8(_mm256_min_epi8(bytes, high), low), low);
}

}  // namespace fogzo
