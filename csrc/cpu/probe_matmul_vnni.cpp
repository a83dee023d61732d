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

// Twelve rows have a sum each: the multiplying pipes are full, and what is read is little more than one
// number of x a product. In assembly, because compilers load and broadcast those on their own and compute
// twelve addresses.
#define FOGZO_ROW(sum, w, address) "vpdpbusd " address "%{1to16%}, %%zmm" #w ", %%zmm" #sum "\n\t"
#define FOGZO_THREE(first, second, third, w, at, base)                                                                 \
    FOGZO_ROW(first, w, at "(%[" base "])")                                                                            \
    FOGZO_ROW(second, w, at "(%[" base "],%[pitch])") FOGZO_ROW(third, w, at "(%[" base "],%[pitch],2)")
#define FOGZO_TWELVE(w, at)                                                                                            \
    FOGZO_THREE(0, 1, 2, w, at, "x")                                                                                   \
    FOGZO_THREE(3, 4, 5, w, at, "x3") FOGZO_THREE(6, 7, 8, w, at, "x6") FOGZO_THREE(9, 10, 11, w, at, "x9")
#define FOGZO_PANEL(at, to) "vmovdqa64 64*" #at "(%[panel]), %%zmm" #to "\n\t"
#define FOGZO_ON(count)                                                                                                \
    "add $64*" #count ", %[panel]\n\tadd $4*" #count ", %[x]\n\tadd $4*" #count ", %[x3]\n\tadd $4*" #count            \
    ", %[x6]\n\tadd $4*" #count ", %[x9]\n\t"
#define FOGZO_EACH12(macro)                                                                                            \
    macro(0) macro(1) macro(2) macro(3) macro(4) macro(5) macro(6) macro(7) macro(8) macro(9) macro(10) macro(11)
#define FOGZO_TAKE(a) "vmovdqu64 64*" #a "(%[sums]), %%zmm" #a "\n\t"
#define FOGZO_GIVE(a) "vmovdqu64 %%zmm" #a ", 64*" #a "(%[sums])\n\t"
template <>
inline void add_bytes<12>(const uint8_t* panel, const int8_t* x, int64_t pitch, int64_t steps, __m512i* sums) {
    const int8_t* x3 = x + 3 * pitch;
    const int8_t* x6 = x + 6 * pitch;
    const int8_t* x9 = x + 9 * pitch;
    asm volatile(FOGZO_EACH12(FOGZO_TAKE) "sub $4, %[steps]\n\tjl 2f\n\t.p2align 5\n\t1:\n\t" FOGZO_PANEL(
                     0, 12) FOGZO_PANEL(1, 13) FOGZO_TWELVE(12, "0") FOGZO_PANEL(2, 14) FOGZO_TWELVE(13, "4")
                     FOGZO_PANEL(3, 15) FOGZO_TWELVE(14, "8") FOGZO_TWELVE(15, "12") FOGZO_ON(
                         4) "sub $4, %[steps]\n\tjge 1b\n\t2:\n\tadd $4, %[steps]\n\tjz 4f\n\t3:\n\t" FOGZO_PANEL(0, 12)
                         FOGZO_TWELVE(12, "0") FOGZO_ON(1) "dec %[steps]\n\tjnz 3b\n\t4:\n\t" FOGZO_EACH12(FOGZO_GIVE)
                 : [panel] "+r"(panel), [x] "+r"(x), [x3] "+r"(x3), [x6] "+r"(x6), [x9] "+r"(x9), [steps] "+r"(steps)
                 : [pitch] "r"(pitch), [sums] "r"(sums)
                 : "memory", "cc", "zmm0", "zmm1", "zmm2", "zmm3", "zmm4", "zmm5", "zmm6", "zmm7", "zmm8", "zmm9",
                   "zmm10", "zmm11", "zmm12", "zmm13", "zmm14", "zmm15");
}

template <int R> void int8_rows(const Int8Tile& t, int64_t row) {
    const int8_t* x = t.x + row * t.x_pitch;
    const int64_t begin = t.runs[t.first_run].step;
    __m512i sums[R];
    __m512 total[R];
#pragma GCC unroll 12
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
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            const __m512i shift = _mm512_set1_epi32(t.x_shifts[(row + r) * t.run_count + i]);
            const __m512i twice = _mm512_add_epi32(_mm512_mullo_epi32(sums[r], _mm512_set1_epi32(t.twice_step)), shift);
            total[r] = _mm512_add_ps(total[r], _mm512_mul_ps(_mm512_cvtepi32_ps(twice), scale));
            sums[r] = _mm512_setzero_si512();
        }
    }
    if (t.last_run < t.run_count) {
#pragma GCC unroll 12
        for (int r = 0; r < R; ++r) {
            _mm512_storeu_si512(t.sums + (row + r) * kPanel, sums[r]);
            _mm512_storeu_ps(t.totals + (row + r) * kPanel, total[r]);
        }
        return;
    }
#pragma GCC unroll 12
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

void int8_tile(const Int8Tile& tile, int64_t first, int64_t last) {
    for (; last - first >= 12; first += 12) {
        int8_rows<12>(tile, first);
    }
    FOGZO_EACH_TILE(int8_rows, tile, first, last)
}

void float_tile(const FloatTile& tile, int64_t first, int64_t last) { FOGZO_EACH_TILE(float_rows, tile, first, last) }

}  // namespace

const MatmulKernels kVnniMatmul = {
    255, nullptr, int8_panel_avx2, pack_int8_avx2,  int8_tile,         float_panel_avx2,    float_tile,
    0,   nullptr, nullptr,         add_column_avx2, quantize_row_avx2, {0.075, 0.075, 0.27}};

}  // namespace fogzo
