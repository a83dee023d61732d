// int8 probe_matmul with AVX2. No std:: templates and no shared non-static functions here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

inline __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
inline void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

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
#define FOGZO_PAIR_STEP(at, rows)                                                                                      \
    FOGZO_LOAD(at, 8)                                                                                                  \
    FOGZO_LOAD(at + 2, 9) FOGZO_LOAD(at + 4, 10) FOGZO_LOAD(at + 6, 11) rows(FOGZO_PAIR_ROW, #at)
#define FOGZO_PAIR_TILE(count)                                                                                         \
    FOGZO_TILE(add_pairs, count, FOGZO_FIRST##count(FOGZO_ZERO), FOGZO_PAIR_STEP(0, FOGZO_ROWS##count),                \
               FOGZO_PAIR_STEP(0, FOGZO_ROWS##count) FOGZO_PAIR_STEP(8, FOGZO_ROWS##count)                             \
                   FOGZO_PAIR_STEP(16, FOGZO_ROWS##count) FOGZO_PAIR_STEP(24, FOGZO_ROWS##count),                      \
               8, 32, FOGZO_FIRST##count(FOGZO_ADD))

FOGZO_TILES(add_bytes, FOGZO_BYTE_ROW, FOGZO_ONES, FOGZO_ADD_PAIRS)

template <int R> void add_pairs(const void* panel, const void* x, int64_t pitch, int64_t steps, void* sums);
FOGZO_PAIR_TILE(1)
FOGZO_PAIR_TILE(2)
FOGZO_PAIR_TILE(3)
FOGZO_PAIR_TILE(4)

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

template <int R, int width> void int8_rows(const Int8Tile& t, int64_t row) {
    const int8_t* x = t.x + row * t.x_pitch;
    const int64_t begin = t.runs[t.first_run].step;
    Sums<R> all;
    all.begin(t, row);
    for (int r = 0; r < R; ++r) {
        __builtin_prefetch(t.y + (row + r) * t.y_pitch, 1);
    }
    for (int64_t i = t.first_run; i < t.last_run; ++i) {
        const Stretch& run = t.runs[i];
        const uint8_t* panel = t.panel + (run.step - begin) * 64;
        if constexpr (width == 2) {
#pragma GCC unroll 12
            for (int r = 0; r < 2 * R; ++r) {
                all.sums[r] = _mm256_sub_epi32(all.sums[r], load(t.pairs + i * kPanel + r % 2 * 8));
            }
            add_pairs<R>(panel, x + run.step * 4, t.x_pitch, run.steps / 2, all.sums);
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

template <int R> void byte_rows(const Int8Tile& t, int64_t row) { int8_rows<R, 1>(t, row); }

void int8_tile(const Int8Tile& tile, int64_t first, int64_t last) {
    if (tile.width == 1) {
        FOGZO_EACH_TILE(byte_rows, tile, first, last)
    }
    for (; last - first >= 4; first += 4) {
        int8_rows<4, 2>(tile, first);
    }
    switch (last - first) {
    case 3: return int8_rows<3, 2>(tile, first);
    case 2: return int8_rows<2, 2>(tile, first);
    case 1: return int8_rows<1, 2>(tile, first);
    default: return;
    }
}

template <int bits, int width>
void int8_panel_as(const CodeRows& codes, const Stretch& run, uint8_t mask, uint8_t* panel, int32_t* pairs) {
    constexpr int per_word = 32 / bits;
    constexpr int steps = 8 / bits * width;  // in a word
    const __m256i keep = width == 2 ? _mm256_set1_epi16(mask) : _mm256_set1_epi8(static_cast<char>(mask));
    const int64_t words = (run.count + per_word - 1) / per_word;
    for (int half = 0; half < 2; ++half) {
        __m256i sum = _mm256_setzero_si256();
        for (int64_t w = 0; w < words; w += 8) {
            __m256i lanes[8];
            word_lanes(codes, run, bits, half * 8, w, words, lanes);
            const int count = words - w < 8 ? static_cast<int>(words - w) : 8;
            for (int i = 0; i < count; ++i) {
                uint8_t* to = panel + (w + i) * steps * 64 + half * 32;
                for (int s = 0; s < steps; ++s) {
                    store(to + s * 64, _mm256_and_si256(_mm256_srli_epi32(lanes[i], bits * s), keep));
                }
                if constexpr (width == 2) {
                    const __m256i second = _mm256_and_si256(_mm256_srli_epi32(lanes[i], bits), keep);
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(lanes[i], keep), second));
                }
            }
        }
        if constexpr (width == 2) {
            store(pairs + half * 8, sum);
        }
    }
}

}  // namespace

void int8_panel_avx2(const CodeRows& codes, const Stretch& run, uint8_t mask, int width, uint8_t* panel,
                     int32_t* pairs) {
    switch (codes.bits) {
    case 1: return int8_panel_as<1, 1>(codes, run, mask, panel, pairs);
    case 2: return int8_panel_as<2, 1>(codes, run, mask, panel, pairs);
    case 4: return int8_panel_as<4, 1>(codes, run, mask, panel, pairs);
    default:
        return width == 2 ? int8_panel_as<8, 2>(codes, run, mask, panel, pairs)
                          : int8_panel_as<8, 1>(codes, run, mask, panel, pairs);
    }
}

namespace {

// Bytes of 32 k in the order of a panel's steps: step s, byte j is k = j * (8 / bits) + s of a word.
inline __m256i permute(__m256i x, int bits) {
    if (bits == 8) {
        return x;
    }
    if (bits == 4) {  // words of 8: 0 2 4 6, 1 3 5 7
        return _mm256_shuffle_epi8(x, _mm256_setr_epi8(0, 2, 4, 6, 1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15, 0, 2, 4, 6,
                                                       1, 3, 5, 7, 8, 10, 12, 14, 9, 11, 13, 15));
    }
    if (bits == 2) {  // words of 16: 0 4 8 12, 1 5 9 13, ..
        return _mm256_shuffle_epi8(x, _mm256_setr_epi8(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15, 0, 4, 8,
                                                       12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15));
    }
    // words of 32: 0 8 16 24, 1 9 17 25, ..
    const __m256i pairs =
        _mm256_shuffle_epi8(x, _mm256_setr_epi8(0, 8, 1, 9, 2, 10, 3, 11, 4, 12, 5, 13, 6, 14, 7, 15, 0, 8, 1, 9, 2, 10,
                                                3, 11, 4, 12, 5, 13, 6, 14, 7, 15));
    const __m256i swapped = _mm256_permute2x128_si256(pairs, pairs, 1);
    const __m256i low = _mm256_unpacklo_epi16(pairs, swapped);
    const __m256i high = _mm256_unpackhi_epi16(pairs, swapped);
    return _mm256_permute2x128_si256(low, high, 0x20);
}

inline int32_t total(__m256i sums) {
    int32_t lanes[8];
    store(lanes, sums);
    int32_t result = 0;
    for (const int32_t lane : lanes) {
        result += lane;
    }
    return result;
}

// 32 k to `count` bytes at out, or twice as many of 16 bits: words of 4 in the order 0 2, 1 3.
inline void store_order(__m256i bytes, int bits, int width, int count, int8_t* out) {
    int8_t some[64];
    int8_t* to = count == 32 ? out : some;
    if (width == 1) {
        store(to, permute(bytes, bits));
    } else {
        const __m256i swap = _mm256_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 0, 2, 1, 3, 4, 6, 5,
                                              7, 8, 10, 9, 11, 12, 14, 13, 15);
        const __m256i ordered = _mm256_shuffle_epi8(bytes, swap);
        store(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(ordered)));
        store(to + 32, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(ordered, 1)));
    }
    if (to == some) {
        for (int i = 0; i < count * width; ++i) {
            out[i] = some[i];
        }
    }
}

}  // namespace

XSums pack_int8_avx2(const int8_t* x, const Stretch& run, int bits, int width, int8_t* out) {
    const __m256i ones8 = _mm256_set1_epi8(1);
    const __m256i ones16 = _mm256_set1_epi16(1);
    __m256i sum = _mm256_setzero_si256();
    __m256i pairs = _mm256_setzero_si256();
    const auto add = [&](__m256i bytes) {
        if (width == 2) {
            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(bytes, 8), 8);
            pairs = _mm256_add_epi32(pairs, _mm256_madd_epi16(even, _mm256_srai_epi16(bytes, 8)));
        }
        sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_maddubs_epi16(ones8, bytes), ones16));
    };
    int64_t k = 0;
    for (; k + 32 <= run.count; k += 32) {
        const __m256i bytes = load(x + run.first + k);
        add(bytes);
        store_order(bytes, bits, width, 32, out + k * width);
    }
    const int64_t size = run.steps * 4 / width;
    if (k < size) {
        int8_t tail[32] = {};
        for (int64_t i = k; i < run.count; ++i) {
            tail[i - k] = x[run.first + i];
        }
        add(load(tail));
        store_order(load(tail), bits, width, static_cast<int>(size - k), out + k * width);
    }
    return {total(sum), total(pairs)};
}

void add_column_avx2(const float* column, float factor, float* sums) {
    const __m256 by = _mm256_set1_ps(factor);
    for (int i = 0; i < kColumn; i += 8) {
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

const MatmulKernels kAvx2Matmul = {"avx2",           kMostNarrowCode, int8_panel_avx2, pack_int8_avx2,   int8_tile,
                                   float_panel_avx2, float_tile_fma,  add_column_avx2, quantize_row_avx2};

}  // namespace fogzo
