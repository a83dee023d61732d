// int8 probe_matmul with AVX2. No std:: templates and no shared non-static functions here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

// Bytes: products of pairs of k in 16 bits, which hold 32767 / (2 * 128 * most_code) steps of them.
#define FOGZO_BYTE_ROW(low, high, address)                                                                             \
    "vpbroadcastd " address ", %%ymm14\n\t"                                                                            \
    "vpmaddubsw %%ymm14, %%ymm12, %%ymm15\n\t"                                                                         \
    "vpmaddubsw %%ymm14, %%ymm13, %%ymm14\n\t"                                                                         \
    "vpaddw %%ymm15, %%ymm" #low ", %%ymm" #low "\n\t"                                                                 \
    "vpaddw %%ymm14, %%ymm" #high ", %%ymm" #high "\n\t"
// Two bytes a number, for codes whose products leave 16 bits too soon: products of pairs (see XSums). A step
// is four k: c0 c2 of sixteen columns in ymm8 and ymm9, c1 c3 in ymm10 and ymm11; x0 x2, then x1 x3.
#define FOGZO_PAIR_ROW(low, high, address)                                                                             \
    "vpbroadcastd " address ", %%ymm12\n\t"                                                                            \
    "vpbroadcastd 4+" address ", %%ymm13\n\t"                                                                          \
    "vpaddw %%ymm10, %%ymm12, %%ymm14\n\t"                                                                             \
    "vpaddw %%ymm8, %%ymm13, %%ymm15\n\t"                                                                              \
    "vpmaddwd %%ymm14, %%ymm15, %%ymm14\n\t"                                                                           \
    "vpaddw %%ymm11, %%ymm12, %%ymm12\n\t"                                                                             \
    "vpaddw %%ymm9, %%ymm13, %%ymm13\n\t"                                                                              \
    "vpmaddwd %%ymm12, %%ymm13, %%ymm12\n\t"                                                                           \
    "vpaddd %%ymm14, %%ymm" #low ", %%ymm" #low "\n\t"                                                                 \
    "vpaddd %%ymm12, %%ymm" #high ", %%ymm" #high "\n\t"
// Bytes whose products fit in 16 bits four at a time: w of eight k and sixteen columns in ymm8 to ymm11.
#define FOGZO_FOUR_ROW(low, high, address)                                                                             \
    "vpbroadcastd " address ", %%ymm13\n\t"                                                                            \
    "vpmaddubsw %%ymm8, %%ymm13, %%ymm14\n\t"                                                                          \
    "vpmaddubsw %%ymm9, %%ymm13, %%ymm13\n\t"                                                                          \
    "vpbroadcastd 4+" address ", %%ymm15\n\t"                                                                          \
    "vpmaddubsw %%ymm10, %%ymm15, %%ymm15\n\t"                                                                         \
    "vpaddw %%ymm15, %%ymm14, %%ymm14\n\t"                                                                             \
    "vpbroadcastd 4+" address ", %%ymm15\n\t"                                                                          \
    "vpmaddubsw %%ymm11, %%ymm15, %%ymm15\n\t"                                                                         \
    "vpaddw %%ymm15, %%ymm13, %%ymm13\n\t"                                                                             \
    "vpmaddwd %%ymm12, %%ymm14, %%ymm14\n\t"                                                                           \
    "vpmaddwd %%ymm12, %%ymm13, %%ymm13\n\t"                                                                           \
    "vpaddd %%ymm14, %%ymm" #low ", %%ymm" #low "\n\t"                                                                 \
    "vpaddd %%ymm13, %%ymm" #high ", %%ymm" #high "\n\t"
#define FOGZO_WIDE_STEP(at, rows, row)                                                                                 \
    FOGZO_LOAD(at, 8) FOGZO_LOAD(at + 2, 9) FOGZO_LOAD(at + 4, 10) FOGZO_LOAD(at + 6, 11) rows(row, #at)
#define FOGZO_WIDE_TILE(name, count, row, before)                                                                      \
    FOGZO_TILE(name, count, before FOGZO_FIRST##count(FOGZO_ZERO), FOGZO_WIDE_STEP(0, FOGZO_ROWS##count, row),         \
               FOGZO_WIDE_STEP(0, FOGZO_ROWS##count, row) FOGZO_WIDE_STEP(8, FOGZO_ROWS##count, row)                   \
                   FOGZO_WIDE_STEP(16, FOGZO_ROWS##count, row) FOGZO_WIDE_STEP(24, FOGZO_ROWS##count, row),            \
               8, 32, FOGZO_FIRST##count(FOGZO_ADD))
#define FOGZO_WIDE_TILES(name, row, before)                                                                            \
    template <int R> void name(const void* panel, const void* x, int64_t pitch, int64_t steps, void* sums);            \
    FOGZO_WIDE_TILE(name, 1, row, before)                                                                              \
    FOGZO_WIDE_TILE(name, 2, row, before)                                                                              \
    FOGZO_WIDE_TILE(name, 3, row, before)                                                                              \
    FOGZO_WIDE_TILE(name, 4, row, before)

FOGZO_TILES(add_bytes, FOGZO_BYTE_ROW, FOGZO_ONES(15), FOGZO_ADD_PAIRS)
FOGZO_WIDE_TILES(add_fours, FOGZO_FOUR_ROW, FOGZO_ONES(12))
FOGZO_WIDE_TILES(add_pairs, FOGZO_PAIR_ROW, "")

constexpr int kMostNarrowCode = 15;

// What a tile has summed up so far. Written out in full where it begins: compilers call memset, at a
// tenth of a tile's time.
template <int R> struct Sums {
    __m256i sums[2 * R];   // of x * code, since a run closed
    __m256 totals[2 * R];  // of scale * sum of x * 2 value

    void begin(const Int8Tile& t, int64_t row) {
#pragma GCC unroll 12
        for (int r = 0; r < 2 * R; ++r) {
            sums[r] = t.first_run > 0 ? load(t.sums + row * kPanel + 8 * r) : _mm256_setzero_si256();
            totals[r] = t.first_run > 0 ? _mm256_loadu_ps(t.totals + row * kPanel + 8 * r) : _mm256_setzero_ps();
        }
    }

    void close(const Int8Tile& t, int64_t row, int64_t run) {
        const float* scales = t.scales + t.runs[run].group * kPanel;
        const __m256i twice_step = _mm256_set1_epi32(t.twice_step);
#pragma GCC unroll 12
        for (int r = 0; r < 2 * R; ++r) {
            const __m256i shift = _mm256_set1_epi32(t.x_shifts[(row + r / 2) * t.run_count + run]);
            const __m256i twice = _mm256_add_epi32(_mm256_mullo_epi32(sums[r], twice_step), shift);
            const __m256 scale = _mm256_loadu_ps(scales + r % 2 * 8);
            totals[r] = _mm256_add_ps(totals[r], _mm256_mul_ps(_mm256_cvtepi32_ps(twice), scale));
            sums[r] = _mm256_setzero_si256();
        }
    }

    void end(const Int8Tile& t, int64_t row) const {
        if (t.last_run < t.run_count) {
#pragma GCC unroll 12
            for (int r = 0; r < 2 * R; ++r) {
                store(t.sums + row * kPanel + 8 * r, sums[r]);
                _mm256_storeu_ps(t.totals + row * kPanel + 8 * r, totals[r]);
            }
            return;
        }
        for (int r = 0; r < R; ++r) {
            const __m256 scale = _mm256_set1_ps(t.x_scale[row + r]);
            const __m256 y0 = _mm256_add_ps(_mm256_mul_ps(totals[2 * r], scale), _mm256_loadu_ps(t.bias));
            const __m256 y1 = _mm256_add_ps(_mm256_mul_ps(totals[2 * r + 1], scale), _mm256_loadu_ps(t.bias + 8));
            store_columns(t.y + (row + r) * t.y_pitch, y0, y1, t.valid);
        }
    }
};

template <int R, Form form> void int8_rows(const Int8Tile& t, int64_t row) {
    const int8_t* x = t.x + row * t.x_pitch;
    const int64_t begin = t.runs[t.first_run].step;
    Sums<R> all;
    all.begin(t, row);
    for (int r = 0; r < R; ++r) {
        __builtin_prefetch(t.y + (row + r) * t.y_pitch, 1);
    }
    for (int64_t i = t.first_run; i < t.last_run; ++i) {
        const Stretch& run = t.runs[i];
        const uint8_t* panel = t.panel + (run.step - begin) * 64 * number_bytes(form);
        if constexpr (form != Form::kCodes) {
#pragma GCC unroll 12
            for (int r = 0; r < 2 * R; ++r) {
                all.sums[r] = _mm256_sub_epi32(all.sums[r], load(t.surplus + i * kPanel + r % 2 * 8));
            }
        }
        if constexpr (form == Form::kFours) {
            add_fours<R>(panel, x + run.step * 4, t.x_pitch, run.steps / 2, all.sums);
        } else if constexpr (form == Form::kPairs) {
            add_pairs<R>(panel, x + run.step * 8, t.x_pitch, run.steps, all.sums);
        } else {
            for (int64_t s = 0; s < run.steps; s += t.narrow_steps) {
                const int64_t steps = s + t.narrow_steps < run.steps ? t.narrow_steps : run.steps - s;
                add_bytes<R>(panel + s * 64, x + (run.step + s) * 4, t.x_pitch, steps, all.sums);
            }
        }
        if (run.closes) {
            all.close(t, row, i);
        }
    }
    all.end(t, row);
}

template <int R> void code_rows(const Int8Tile& t, int64_t row) { int8_rows<R, Form::kCodes>(t, row); }

// At most four rows, whose sums leave eight registers.
template <Form form> void wide_rows(const Int8Tile& t, int64_t first, int64_t last) {
    for (; last - first >= 4; first += 4) {
        int8_rows<4, form>(t, first);
    }
    switch (last - first) {
    case 3: return int8_rows<3, form>(t, first);
    case 2: return int8_rows<2, form>(t, first);
    case 1: return int8_rows<1, form>(t, first);
    default: return;
    }
}

void int8_tile(const Int8Tile& tile, int64_t first, int64_t last) {
    switch (tile.form) {
    case Form::kFours: return wide_rows<Form::kFours>(tile, first, last);
    case Form::kPairs: return wide_rows<Form::kPairs>(tile, first, last);
    case Form::kCodes: break;
    }
    FOGZO_EACH_TILE(code_rows, tile, first, last)
}

}  // namespace

void add_column_avx2(const float* column, float factor, int width, float* sums) {
    const __m256 by = _mm256_set1_ps(factor);
    for (int i = 0; i < width; i += 8) {
        const __m256 product = _mm256_mul_ps(by, _mm256_loadu_ps(column + i));
        _mm256_storeu_ps(sums + i, _mm256_add_ps(_mm256_loadu_ps(sums + i), product));
    }
}

float quantize_row_avx2(const float* x, int64_t count, float q, int8_t* codes) {
    // As integers the magnitudes keep their order, and NaN is the largest.
    const __m256i magnitude = _mm256_set1_epi32(0x7FFFFFFF);
    __m256i most = _mm256_setzero_si256();
    int64_t i = 0;
    for (; i + 8 <= count; i += 8) {
        most = _mm256_max_epi32(most, _mm256_and_si256(load(x + i), magnitude));
    }
    int32_t lanes[8];
    store(lanes, most);
    int32_t largest = 0;
    for (const int32_t lane : lanes) {
        largest = lane > largest ? lane : largest;
    }
    for (; i < count; ++i) {
        const int32_t size = magnitude_bits(x[i]);
        largest = size > largest ? size : largest;
    }
    float a;
    __builtin_memcpy(&a, &largest, 4);
    a /= q;
    const __m256 divisor = _mm256_set1_ps(a);
    const __m256 high = _mm256_set1_ps(q);
    const __m256 low = _mm256_set1_ps(-q);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    for (i = 0; i + 32 <= count; i += 32) {
        __m256i part[4];
        for (int j = 0; j < 4; ++j) {
            const __m256 t = _mm256_div_ps(_mm256_loadu_ps(x + i + 8 * j), divisor);
            const __m256 number = _mm256_and_ps(t, _mm256_cmp_ps(t, t, _CMP_ORD_Q));
            part[j] = _mm256_cvtps_epi32(_mm256_min_ps(_mm256_max_ps(number, low), high));
        }
        const __m256i packed =
            _mm256_packs_epi16(_mm256_packs_epi32(part[0], part[1]), _mm256_packs_epi32(part[2], part[3]));
        store(codes + i, _mm256_permutevar8x32_epi32(packed, order));
    }
    for (; i < count; ++i) {
        codes[i] = activation_code(x[i], a, q);
    }
    return a;
}

const MatmulKernels kAvx2Matmul = {kMostNarrowCode,   fours_fit_avx2,   int8_panel_avx2, pack_int8_avx2,
                                   int8_tile,         float_panel_avx2, float_tile_fma,  kMostThin,
                                   thin_panel_avx2,   thin_tile_fma,    add_column_avx2, quantize_row_avx2,
                                   {0.13, 0.23, 0.43}};

}  // namespace fogzo
