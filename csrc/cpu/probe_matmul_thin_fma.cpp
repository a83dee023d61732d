// float32 probe_matmul of panels with few columns, with AVX2 and fused multiply-add: eight k of a row of x
// beside each other, so that no lane works for a column that is not there. No std:: templates here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

constexpr int kEight = 8;  // k in a vector

// Eight codes of a word, in lanes whose lowest bits they are.
template <int bits> inline __m256i eight_codes(uint64_t word, __m256i shifts) {
    if constexpr (bits == 8) {
        return _mm256_cvtepu8_epi32(_mm_cvtsi64_si128(static_cast<int64_t>(word)));
    }
    return _mm256_srlv_epi32(_mm256_set1_epi32(static_cast<int>(word)), shifts);
}

template <int bits>
void panel_as(const CodeRows& codes, int valid, const Stretch& run, uint8_t mask, const float* scales, float step,
              float low, float* panel) {
    const __m256i keep = _mm256_set1_epi32(mask);
    const __m256i places = _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7);
    const __m256i shifts = _mm256_mullo_epi32(places, _mm256_set1_epi32(bits));
    const __m256 steps = _mm256_set1_ps(step);
    const __m256 lowest = _mm256_set1_ps(low);
    const int64_t whole = run.count / kEight;
    for (int n = 0; n < valid; ++n) {
        const uint8_t* row = codes.row[n] + run.first / kEight * bits;
        const __m256 scale = _mm256_set1_ps(scales[n]);
        float* to = panel + n * kEight;
        const auto weights = [&](uint64_t word) {
            const __m256i code = _mm256_and_si256(eight_codes<bits>(word, shifts), keep);
            return _mm256_mul_ps(_mm256_add_ps(_mm256_mul_ps(_mm256_cvtepi32_ps(code), steps), lowest), scale);
        };
        for (int64_t i = 0; i < whole; ++i) {
            uint64_t word = 0;
            __builtin_memcpy(&word, row + i * bits, bits);
            _mm256_store_ps(to + i * kEight * kPanel, weights(word));
        }
        const int64_t rest = run.count % kEight;
        if (rest != 0) {  // 0 behind it, as x is there: 0 times a weight that overflowed is not 0
            uint64_t word = 0;
            for (int64_t i = 0; i < (rest * bits + 7) / 8; ++i) {
                word |= static_cast<uint64_t>(row[whole * bits + i]) << (8 * i);
            }
            const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(rest)), places);
            _mm256_store_ps(to + whole * kEight * kPanel, _mm256_and_ps(weights(word), _mm256_castsi256_ps(there)));
        }
    }
}

// Sums of up to four vectors, in as many lanes.
template <int count> inline __m128 totals(const __m256* sums) {
    const __m256 zero = _mm256_setzero_ps();
    const __m256 first = _mm256_hadd_ps(sums[0], count > 1 ? sums[1] : zero);
    const __m256 second = count > 2 ? _mm256_hadd_ps(sums[2], count > 3 ? sums[3] : zero) : zero;
    const __m256 all = _mm256_hadd_ps(first, second);
    return _mm_add_ps(_mm256_castps256_ps128(all), _mm256_extractf128_ps(all, 1));
}

template <int count> inline __m128 load_few(const float* y) {
    if constexpr (count == 4) {
        return _mm_loadu_ps(y);
    }
    if constexpr (count == 1) {
        return _mm_load_ss(y);
    }
    const __m128 two = _mm_loadl_pi(_mm_setzero_ps(), reinterpret_cast<const __m64*>(y));
    return count == 2 ? two : _mm_movelh_ps(two, _mm_load_ss(y + 2));
}

template <int count> inline void store_few(float* y, __m128 values) {
    if constexpr (count == 4) {
        _mm_storeu_ps(y, values);
        return;
    }
    if constexpr (count > 1) {
        _mm_storel_pi(reinterpret_cast<__m64*>(y), values);
    }
    if constexpr (count == 1) {
        _mm_store_ss(y, values);
    } else if constexpr (count == 3) {
        _mm_store_ss(y + 2, _mm_movehl_ps(values, values));
    }
}

// y of columns n and up, four at a time.
template <int N, int n> inline void finish(const FloatTile& t, const __m256* sums, float* y) {
    if constexpr (n < N) {
        constexpr int count = N - n < 4 ? N - n : 4;
        const __m128 old = load_few<count>(t.first ? t.bias + n : y + n);
        store_few<count>(y + n, _mm_add_ps(totals<count>(sums + n), old));
        finish<N, n + 4>(t, sums, y);
    }
}

// R rows of x against N columns.
template <int R, int N> void rows(const FloatTile& t, int64_t row) {
    const float* x = t.x + row * t.x_pitch;
    __m256 sums[R][N];
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            sums[r][n] = _mm256_setzero_ps();
        }
    }
    const auto add = [&](const __m256* values, const float* panel) {
#pragma GCC unroll 16
        for (int n = 0; n < N; ++n) {
            const __m256 w = _mm256_load_ps(panel + n * kEight);
#pragma GCC unroll 16
            for (int r = 0; r < R; ++r) {
                sums[r][n] = _mm256_fmadd_ps(values[r], w, sums[r][n]);
            }
        }
    };
    __m256 values[R];
    int64_t k = 0;
    for (; k + kEight <= t.count; k += kEight) {
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            values[r] = _mm256_loadu_ps(x + r * t.x_pitch + k);
        }
        add(values, t.panel + k * kPanel);
    }
    if (k < t.count) {
        const __m256i there = _mm256_cmpgt_epi32(_mm256_set1_epi32(static_cast<int>(t.count - k)),
                                                 _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
#pragma GCC unroll 16
        for (int r = 0; r < R; ++r) {
            values[r] = _mm256_maskload_ps(x + r * t.x_pitch + k, there);
        }
        add(values, t.panel + k * kPanel);
    }
#pragma GCC unroll 16
    for (int r = 0; r < R; ++r) {
        finish<N, 0>(t, sums[r], t.y + (row + r) * t.y_pitch);
    }
}

// As many rows at once as there are sums to fill the pipeline, and registers for them.
template <int N> void tile_of(const FloatTile& t, int64_t first, int64_t last) {
    constexpr int R = N < 2 ? 8 : kMostThin / N;
    for (; first + R <= last; first += R) {
        rows<R, N>(t, first);
    }
    for (; first < last; ++first) {
        rows<1, N>(t, first);
    }
}

}  // namespace

void thin_panel_avx2(const CodeRows& codes, int valid, const Stretch& run, uint8_t mask, const float* scales,
                     float step, float low, float* panel) {
    switch (codes.bits) {
    case 1: return panel_as<1>(codes, valid, run, mask, scales, step, low, panel);
    case 2: return panel_as<2>(codes, valid, run, mask, scales, step, low, panel);
    case 4: return panel_as<4>(codes, valid, run, mask, scales, step, low, panel);
    default: return panel_as<8>(codes, valid, run, mask, scales, step, low, panel);
    }
}

void thin_tile_fma(const FloatTile& tile, int64_t first, int64_t last) {
    switch (tile.valid) {
    case 1: return tile_of<1>(tile, first, last);
    case 2: return tile_of<2>(tile, first, last);
    case 3: return tile_of<3>(tile, first, last);
    case 4: return tile_of<4>(tile, first, last);
    case 5: return tile_of<5>(tile, first, last);
    case 6: return tile_of<6>(tile, first, last);
    case 7: return tile_of<7>(tile, first, last);
    case 8: return tile_of<8>(tile, first, last);
    case 9: return tile_of<9>(tile, first, last);
    case 10: return tile_of<10>(tile, first, last);
    case 11: return tile_of<11>(tile, first, last);
    default: return tile_of<kMostThin>(tile, first, last);
    }
}

}  // namespace fogzo
