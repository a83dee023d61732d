// float32 probe_matmul with AVX2 and fused multiply-add, which this operation alone may use: its
// sums are promised within a tolerance, not bit for bit. No std:: templates here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

#define FOGZO_FLOAT_ROW(low, high, address)                                                                            \
    "vbroadcastss " address ", %%ymm14\n\t"                                                                            \
    "vfmadd231ps %%ymm14, %%ymm12, %%ymm" #low "\n\t"                                                                  \
    "vfmadd231ps %%ymm14, %%ymm13, %%ymm" #high "\n\t"

FOGZO_TILES(dot, FOGZO_FLOAT_ROW, "", FOGZO_KEEP)

template <int R> void float_rows(const FloatTile& t, int64_t row) {
    __m256 sums[2 * R];
    dot<R>(t.panel, t.x + row * t.x_pitch, t.x_pitch * 4, t.count, sums);
    for (int r = 0; r < R; ++r) {
        float* y = t.y + (row + r) * t.y_pitch;
        __m256 old0 = _mm256_loadu_ps(t.bias);
        __m256 old1 = _mm256_loadu_ps(t.bias + 8);
        if (!t.first) {
            load_columns(y, t.valid, &old0, &old1);
        }
        store_columns(y, _mm256_add_ps(sums[2 * r], old0), _mm256_add_ps(sums[2 * r + 1], old1), t.valid);
    }
}

// One word of eight rows -> eight values for each of its codes.
template <int bits> struct Values {
    __m256 table;
    __m256 scale;
    __m256i keep;
    __m256 step;
    __m256 low;

    __m256 at(__m256i words, int index) const {
        const __m256i code = _mm256_srli_epi32(words, bits * index);
        if (bits <= 2) {  // the permutation reads the lowest two bits only
            return _mm256_mul_ps(_mm256_permutevar_ps(table, code), scale);
        }
        const __m256 value = _mm256_cvtepi32_ps(_mm256_and_si256(code, keep));
        return _mm256_mul_ps(_mm256_add_ps(_mm256_mul_ps(value, step), low), scale);
    }
};

template <int bits>
void float_panel_as(const CodeRows& codes, const Stretch& run, uint8_t mask, const float* scales, float step, float low,
                    float* panel) {
    constexpr int per_word = 32 / bits;
    const int64_t words = (run.count + per_word - 1) / per_word;
    float table[8];
    for (int i = 0; i < 8; ++i) {
        table[i] = low + step * static_cast<float>(i & mask & ((1 << bits) - 1));
    }
    for (int half = 0; half < 2; ++half) {
        const Values<bits> values = {_mm256_loadu_ps(table), _mm256_loadu_ps(scales + 8 * half),
                                     _mm256_set1_epi32(mask), _mm256_set1_ps(step), _mm256_set1_ps(low)};
        for (int64_t w = 0; w < words; w += 8) {
            __m256i lanes[8];
            word_lanes(codes, run, bits, half * 8, w, words, lanes);
            for (int i = 0; i < 8 && w + i < words; ++i) {
                const int64_t k = (w + i) * per_word;
                const int count = run.count - k < per_word ? static_cast<int>(run.count - k) : per_word;
                float* to = panel + k * kPanel + half * 8;
                if (count == per_word) {
#pragma GCC unroll 32
                    for (int j = 0; j < per_word; ++j) {
                        _mm256_store_ps(to + j * kPanel, values.at(lanes[i], j));
                    }
                } else {
                    __m256i rest = lanes[i];
                    for (int j = 0; j < count; ++j) {
                        _mm256_store_ps(to + j * kPanel, values.at(rest, 0));
                        rest = _mm256_srli_epi32(rest, bits);
                    }
                }
            }
        }
    }
}

}  // namespace

void float_panel_avx2(const CodeRows& codes, const Stretch& run, uint8_t mask, const float* scales, float step,
                      float low, float* panel) {
    switch (codes.bits) {
    case 1: return float_panel_as<1>(codes, run, mask, scales, step, low, panel);
    case 2: return float_panel_as<2>(codes, run, mask, scales, step, low, panel);
    case 4: return float_panel_as<4>(codes, run, mask, scales, step, low, panel);
    default: return float_panel_as<8>(codes, run, mask, scales, step, low, panel);
    }
}

void float_tile_fma(const FloatTile& tile, int64_t first, int64_t last) {
    FOGZO_EACH_TILE(float_rows, tile, first, last)
}

}  // namespace fogzo
