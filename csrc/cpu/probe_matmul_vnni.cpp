// probe_matmul with AVX-512 and VNNI, which multiplies and adds four bytes at once into 32 bits. Panels
// and packed rows are AVX2's. No std:: templates and no shared non-static functions here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

inline __mmask16 columns(int valid) { return static_cast<__mmask16>((1u << valid) - 1u); }

inline __m512i four_bytes(const int8_t* x) {
    int32_t four;
    __builtin_memcpy(&four, x, 4);
    return _mm512_set1_epi32(four);
}

// Two sums a row, of even and of odd steps: one alone would wait for itself. Not inlined, so that the
// caller's totals take no registers.
template <int R>
__attribute__((noinline)) void add_bytes(const uint8_t* panel, const int8_t* x, int64_t pitch, int64_t steps,
                                         __m512i* sums) {
    __m512i even[R];
    __m512i odd[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        even[r] = odd[r] = _mm512_setzero_si512();
    }
    int64_t s = 0;
    for (; s + 2 <= steps; s += 2) {
        const __m512i w0 = _mm512_load_si512(panel + s * 64);
        const __m512i w1 = _mm512_load_si512(panel + s * 64 + 64);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_dpbusd_epi32(even[r], w0, four_bytes(x + r * pitch + s * 4));
            odd[r] = _mm512_dpbusd_epi32(odd[r], w1, four_bytes(x + r * pitch + s * 4 + 4));
        }
    }
    if (s < steps) {
        const __m512i w0 = _mm512_load_si512(panel + s * 64);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_dpbusd_epi32(even[r], w0, four_bytes(x + r * pitch + s * 4));
        }
    }
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        sums[r] = _mm512_add_epi32(sums[r], _mm512_add_epi32(even[r], odd[r]));
    }
}

template <int R> void int8_rows(const Int8Tile& t, int64_t row) {
    const int8_t* x = t.x + row * t.x_pitch;
    const int64_t begin = t.runs[t.first_run].step;
    __m512i sums[R];
    __m512 total[R];
    for (int r = 0; r < R; ++r) {
        sums[r] = t.first_run > 0 ? _mm512_loadu_si512(t.sums + (row + r) * kPanel) : _mm512_setzero_si512();
        total[r] = t.first_run > 0 ? _mm512_loadu_ps(t.totals + (row + r) * kPanel) : _mm512_setzero_ps();
    }
    for (int64_t i = t.first_run; i < t.last_run; ++i) {
        const Stretch& run = t.runs[i];
        add_bytes<R>(t.panel + (run.step - begin) * 64, x + run.step * 4, t.x_pitch, run.steps, sums);
        if (!run.closes) {
            continue;
        }
        const __m512 scale = _mm512_loadu_ps(t.scales + run.group * kPanel);
        for (int r = 0; r < R; ++r) {
            const __m512i shift = _mm512_set1_epi32(t.x_shifts[(row + r) * t.run_count + i]);
            const __m512i twice = _mm512_add_epi32(_mm512_mullo_epi32(sums[r], _mm512_set1_epi32(t.twice_step)), shift);
            total[r] = _mm512_add_ps(total[r], _mm512_mul_ps(_mm512_cvtepi32_ps(twice), scale));
            sums[r] = _mm512_setzero_si512();
        }
    }
    if (t.last_run < t.run_count) {
        for (int r = 0; r < R; ++r) {
            _mm512_storeu_si512(t.sums + (row + r) * kPanel, sums[r]);
            _mm512_storeu_ps(t.totals + (row + r) * kPanel, total[r]);
        }
        return;
    }
    for (int r = 0; r < R; ++r) {
        const __m512 scaled = _mm512_mul_ps(total[r], _mm512_set1_ps(t.x_scale[row + r]));
        _mm512_mask_storeu_ps(t.y + (row + r) * t.y_pitch, columns(t.valid),
                              _mm512_add_ps(scaled, _mm512_loadu_ps(t.bias)));
    }
}

template <int R> void float_rows(const FloatTile& t, int64_t row) {
    const float* x = t.x + row * t.x_pitch;
    const int64_t pitch = t.x_pitch;
    __m512 even[R];
    __m512 odd[R];
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        even[r] = odd[r] = _mm512_setzero_ps();
    }
    int64_t k = 0;
    for (; k + 2 <= t.count; k += 2) {
        const __m512 w0 = _mm512_load_ps(t.panel + k * kPanel);
        const __m512 w1 = _mm512_load_ps(t.panel + k * kPanel + kPanel);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_fmadd_ps(w0, _mm512_set1_ps(x[r * pitch + k]), even[r]);
            odd[r] = _mm512_fmadd_ps(w1, _mm512_set1_ps(x[r * pitch + k + 1]), odd[r]);
        }
    }
    if (k < t.count) {
        const __m512 w0 = _mm512_load_ps(t.panel + k * kPanel);
#pragma GCC unroll 6
        for (int r = 0; r < R; ++r) {
            even[r] = _mm512_fmadd_ps(w0, _mm512_set1_ps(x[r * pitch + k]), even[r]);
        }
    }
    const __mmask16 valid = columns(t.valid);
#pragma GCC unroll 6
    for (int r = 0; r < R; ++r) {
        float* y = t.y + (row + r) * t.y_pitch;
        const __m512 old = t.first ? _mm512_loadu_ps(t.bias) : _mm512_maskz_loadu_ps(valid, y);
        _mm512_mask_storeu_ps(y, valid, _mm512_add_ps(_mm512_add_ps(even[r], odd[r]), old));
    }
}

void int8_tile(const Int8Tile& tile, int64_t first, int64_t last) { FOGZO_EACH_TILE(int8_rows, tile, first, last) }

void float_tile(const FloatTile& tile, int64_t first, int64_t last) { FOGZO_EACH_TILE(float_rows, tile, first, last) }

}  // namespace

const MatmulKernels kVnniMatmul = {
    255,        nullptr,         int8_panel_avx2,   pack_int8_avx2,  int8_tile, float_panel_avx2,
    float_tile, add_column_avx2, quantize_row_avx2, {0.1, 0.1, 0.27}};

}  // namespace fogzo
