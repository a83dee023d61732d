// Shared by the AVX2 files of probe_matmul: words of eight rows beside each other, ragged stores.
#pragma once
#include <immintrin.h>

#include "probe_matmul.h"

#define FOGZO_INLINE static inline __attribute__((always_inline))

// The inner loops of a tile: sums [2 R] of `steps` steps of R rows of x and a panel, which KEEP stores and
// ADD adds. In assembly, because compilers spill or store twelve accumulators and four operands in sixteen
// registers. A step is `size` bytes of x and 16 times as many of the panel; pitch is in bytes.
#define FOGZO_ZERO(a) "vpxor %%ymm" #a ", %%ymm" #a ", %%ymm" #a "\n\t"
#define FOGZO_KEEP(a) "vmovdqu %%ymm" #a ", 32*" #a "(%[sums])\n\t"
#define FOGZO_ADD(a) "vpaddd 32*" #a "(%[sums]), %%ymm" #a ", %%ymm" #a "\n\t" FOGZO_KEEP(a)
#define FOGZO_ADD_PAIRS(a) "vpmaddwd %%ymm15, %%ymm" #a ", %%ymm" #a "\n\t" FOGZO_ADD(a)
#define FOGZO_ONES(a) "vpcmpeqw %%ymm" #a ", %%ymm" #a ", %%ymm" #a "\n\tvpsrlw $15, %%ymm" #a ", %%ymm" #a "\n\t"
#define FOGZO_LOAD(at, to) "vmovdqa 16*(" #at ")(%[panel]), %%ymm" #to "\n\t"
// One step at panel + 16 * at and x + at: ymm12 and ymm13 hold the panel; ymm14 and ymm15 are free.
#define FOGZO_STEP(at, rows, row) FOGZO_LOAD(at, 12) FOGZO_LOAD(at + 2, 13) rows(row, #at)
#define FOGZO_FOUR_STEPS(rows, row)                                                                                    \
    FOGZO_STEP(0, rows, row) FOGZO_STEP(4, rows, row) FOGZO_STEP(8, rows, row) FOGZO_STEP(12, rows, row)
#define FOGZO_AHEAD(bytes) "add $16*" #bytes ", %[panel]\n\tadd $" #bytes ", %[x]\n\tadd $" #bytes ", %[fourth]\n\t"
// Four steps at a time: pointer additions would take issue slots of the multiplications.
#define FOGZO_TILE(name, rows, zero, one, four, size, four_sizes, keep)                                                \
    template <> inline void name<rows>(const void* panel, const void* x, int64_t pitch, int64_t steps, void* sums) {   \
        const void* fourth = static_cast<const char*>(x) + 3 * pitch;                                                  \
        asm volatile(zero "sub $4, %[steps]\n\tjl 2f\n\t.p2align 5\n\t1:\n\t" four FOGZO_AHEAD(                        \
                         four_sizes) "sub $4, %[steps]\n\tjge 1b\n\t2:\n\tadd $4, %[steps]\n\tjz 4f\n\t3:\n\t" one     \
                         FOGZO_AHEAD(size) "dec %[steps]\n\tjnz 3b\n\t4:\n\t" keep                                     \
                     : [panel] "+r"(panel), [x] "+r"(x), [fourth] "+r"(fourth), [steps] "+r"(steps)                    \
                     : [pitch] "r"(pitch), [sums] "r"(sums)                                                            \
                     : "memory", "cc", "ymm0", "ymm1", "ymm2", "ymm3", "ymm4", "ymm5", "ymm6", "ymm7", "ymm8", "ymm9", \
                       "ymm10", "ymm11", "ymm12", "ymm13", "ymm14", "ymm15");                                          \
    }
#define FOGZO_ROWS_TILE(name, count, row, before, end)                                                                 \
    FOGZO_TILE(name, count, FOGZO_FIRST##count(FOGZO_ZERO), FOGZO_STEP(0, FOGZO_ROWS##count, row),                     \
               FOGZO_FOUR_STEPS(FOGZO_ROWS##count, row), 4, 16, before FOGZO_FIRST##count(end))
#define FOGZO_TILES(name, row, before, end)                                                                            \
    template <int R> void name(const void* panel, const void* x, int64_t pitch, int64_t steps, void* sums);            \
    FOGZO_ROWS_TILE(name, 1, row, before, end)                                                                         \
    FOGZO_ROWS_TILE(name, 2, row, before, end)                                                                         \
    FOGZO_ROWS_TILE(name, 3, row, before, end)                                                                         \
    FOGZO_ROWS_TILE(name, 4, row, before, end)                                                                         \
    FOGZO_ROWS_TILE(name, 5, row, before, end)                                                                         \
    FOGZO_ROWS_TILE(name, 6, row, before, end)
#define FOGZO_FIRST1(macro) macro(0) macro(1)
#define FOGZO_FIRST2(macro) FOGZO_FIRST1(macro) macro(2) macro(3)
#define FOGZO_FIRST3(macro) FOGZO_FIRST2(macro) macro(4) macro(5)
#define FOGZO_FIRST4(macro) FOGZO_FIRST3(macro) macro(6) macro(7)
#define FOGZO_FIRST5(macro) FOGZO_FIRST4(macro) macro(8) macro(9)
#define FOGZO_FIRST6(macro) FOGZO_FIRST5(macro) macro(10) macro(11)
#define FOGZO_ROWS1(row, at) row(0, 1, at "(%[x])")
#define FOGZO_ROWS2(row, at) FOGZO_ROWS1(row, at) row(2, 3, at "(%[x],%[pitch])")
#define FOGZO_ROWS3(row, at) FOGZO_ROWS2(row, at) row(4, 5, at "(%[x],%[pitch],2)")
#define FOGZO_ROWS4(row, at) FOGZO_ROWS3(row, at) row(6, 7, at "(%[fourth])")
#define FOGZO_ROWS5(row, at) FOGZO_ROWS4(row, at) row(8, 9, at "(%[fourth],%[pitch])")
#define FOGZO_ROWS6(row, at) FOGZO_ROWS5(row, at) row(10, 11, at "(%[fourth],%[pitch],2)")

// Rows first .. last - 1 in tiles of at most six; 7 and 8 rows are split evenly, since two rows alone
// would not fill the pipeline.
#define FOGZO_EACH_TILE(function, tile, first, last)                                                                   \
    while (last - first > 8 || last - first == 6) {                                                                    \
        function<6>(tile, first);                                                                                      \
        first += 6;                                                                                                    \
    }                                                                                                                  \
    if (last - first > 6) {                                                                                            \
        function<4>(tile, first);                                                                                      \
        first += 4;                                                                                                    \
    }                                                                                                                  \
    switch (last - first) {                                                                                            \
    case 5: return function<5>(tile, first);                                                                           \
    case 4: return function<4>(tile, first);                                                                           \
    case 3: return function<3>(tile, first);                                                                           \
    case 2: return function<2>(tile, first);                                                                           \
    case 1: return function<1>(tile, first);                                                                           \
    default: return;                                                                                                   \
    }

namespace fogzo {

FOGZO_INLINE __m256i load(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
FOGZO_INLINE void store(void* p, __m256i v) { _mm256_storeu_si256(static_cast<__m256i*>(p), v); }

// v [8 rows of 8 words] -> v [8 words of 8 rows]
FOGZO_INLINE void transpose_words(__m256i* v) {
    __m256i a[8];
    __m256i b[8];
    for (int i = 0; i < 4; ++i) {
        a[2 * i] = _mm256_unpacklo_epi32(v[2 * i], v[2 * i + 1]);
        a[2 * i + 1] = _mm256_unpackhi_epi32(v[2 * i], v[2 * i + 1]);
    }
    for (int i = 0; i < 2; ++i) {
        b[4 * i] = _mm256_unpacklo_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 1] = _mm256_unpackhi_epi64(a[4 * i], a[4 * i + 2]);
        b[4 * i + 2] = _mm256_unpacklo_epi64(a[4 * i + 1], a[4 * i + 3]);
        b[4 * i + 3] = _mm256_unpackhi_epi64(a[4 * i + 1], a[4 * i + 3]);
    }
    for (int i = 0; i < 4; ++i) {
        v[i] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x20);
        v[i + 4] = _mm256_permute2x128_si256(b[i], b[i + 4], 0x31);
    }
}

// lanes [8]: words first .. first + 7 of the run, each of rows row .. row + 7; zeros behind its end.
FOGZO_INLINE void word_lanes(const CodeRows& codes, const Stretch& run, int bits, int row, int64_t first, int64_t words,
                             __m256i* lanes) {
    const bool whole = (run.first * bits) % 8 == 0 && (first + 8) * (32 / bits) <= run.count;
    if (whole) {
        const int64_t byte = run.first * bits / 8 + first * 4;
        for (int r = 0; r < 8; ++r) {
            lanes[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(codes.row[row + r] + byte));
        }
    } else {
        for (int r = 0; r < 8; ++r) {
            uint32_t some[8] = {};
            for (int i = 0; i < 8 && first + i < words; ++i) {
                some[i] = code_word(codes.row[row + r], run, bits, first + i);
            }
            lanes[r] = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(some));
        }
    }
    transpose_words(lanes);
}

FOGZO_INLINE void store_columns(float* y, __m256 y0, __m256 y1, int valid) {
    if (valid & kPanel) {
        _mm256_storeu_ps(y, y0);
        _mm256_storeu_ps(y + 8, y1);
        return;
    }
    if (valid & 8) {
        _mm256_storeu_ps(y, y0);
        y += 8;
        y0 = y1;
    }
    __m128 rest = _mm256_castps256_ps128(y0);
    if (valid & 4) {
        _mm_storeu_ps(y, rest);
        y += 4;
        rest = _mm256_extractf128_ps(y0, 1);
    }
    if (valid & 2) {
        _mm_storel_pi(reinterpret_cast<__m64*>(y), rest);
        y += 2;
        rest = _mm_movehl_ps(rest, rest);
    }
    if (valid & 1) {
        _mm_store_ss(y, rest);
    }
}

FOGZO_INLINE void load_columns(const float* y, int valid, __m256* y0, __m256* y1) {
    float some[kPanel] = {};
    if (valid < kPanel) {
        for (int i = 0; i < valid; ++i) {
            some[i] = y[i];
        }
        y = some;
    }
    *y0 = _mm256_loadu_ps(y);
    *y1 = _mm256_loadu_ps(y + 8);
}

// In probe_matmul_pack_avx2.cpp.
bool fours_fit_avx2(const uint8_t* row, int64_t count, uint8_t mask);
void int8_panel_avx2(const CodeRows& codes, const Stretch& run, uint8_t mask, Form form, uint8_t* panel,
                     int32_t* surplus);
XSums pack_int8_avx2(const int8_t* x, const Stretch& run, int bits, Form form, int8_t* out);

// In probe_matmul_avx2.cpp.
void add_column_avx2(const float* column, float factor, int width, float* sums);
float quantize_row_avx2(const float* x, int64_t count, float q, int8_t* codes);

// In probe_matmul_fma.cpp.
void float_panel_avx2(const CodeRows& codes, const Stretch& run, uint8_t mask, const float* scales, float step,
                      float low, float* panel);
void float_tile_fma(const FloatTile& tile, int64_t first, int64_t last);

// In probe_matmul_thin_fma.cpp.
constexpr int kMostThin = 12;  // columns: their sums, a row of x and a vector of the panel fill the registers
void thin_panel_avx2(const CodeRows& codes, int valid, const Stretch& run, uint8_t mask, const float* scales,
                     float step, float low, float* panel);
void thin_tile_fma(const FloatTile& tile, int64_t first, int64_t last);

}  // namespace fogzo
