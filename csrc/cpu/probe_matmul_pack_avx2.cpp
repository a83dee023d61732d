// Panels and rows of int8 probe_matmul, packed with AVX2. No std:: templates and no shared non-static functions here.
#include <immintrin.h>

#include "probe_matmul_avx2.h"

namespace fogzo {
namespace {

// Sums of four bytes each, of -128 * 2 .. 127 * 2 by pairs.
inline __m256i fours(__m256i bytes) {
    return _mm256_madd_epi16(_mm256_maddubs_epi16(_mm256_set1_epi8(1), bytes), _mm256_set1_epi16(1));
}

template <int bits, Form form>
void int8_panel_as(const CodeRows& codes, const Stretch& run, uint8_t mask, uint8_t* panel, int32_t* surplus) {
    constexpr int bytes = 64 * number_bytes(form);  // in a step
    constexpr int steps = 8 / bits;                 // in a word of one byte a number
    constexpr int parts = steps * number_bytes(form);
    const __m256i keep = form == Form::kPairs ? _mm256_set1_epi16(mask) : _mm256_set1_epi8(static_cast<char>(mask));
    const __m256i middle = _mm256_set1_epi8(static_cast<char>(middle_of(mask)));
    const int64_t words = run.steps / steps;
    for (int half = 0; half < 2; ++half) {
        __m256i sum = _mm256_setzero_si256();
        for (int64_t w = 0; w < words; w += 8) {
            __m256i lanes[8];
            word_lanes(codes, run, bits, half * 8, w, words, lanes);
            const int count = words - w < 8 ? static_cast<int>(words - w) : 8;
            for (int i = 0; i < count; ++i) {
                uint8_t* to = panel + (w + i) * steps * bytes + half * 32;
                if constexpr (form == Form::kFours) {
                    const __m256i offset = _mm256_sub_epi8(_mm256_and_si256(lanes[i], keep), middle);
                    store(to, offset);
                    sum = _mm256_add_epi32(sum, fours(offset));
                    continue;
                }
                for (int s = 0; s < parts; ++s) {
                    store(to + s * 64, _mm256_and_si256(_mm256_srli_epi32(lanes[i], bits * s), keep));
                }
                if constexpr (form == Form::kPairs) {
                    const __m256i second = _mm256_and_si256(_mm256_srli_epi32(lanes[i], bits), keep);
                    sum = _mm256_add_epi32(sum, _mm256_madd_epi16(_mm256_and_si256(lanes[i], keep), second));
                }
            }
        }
        if constexpr (form == Form::kFours) {  // x + 128 is 0 behind the run's end, where w is -middle
            const int64_t behind = (run.steps * 4 - run.count) * middle_of(mask);
            sum = _mm256_add_epi32(sum, _mm256_set1_epi32(static_cast<int32_t>(behind)));
            store(surplus + half * 8, _mm256_slli_epi32(sum, 7));
        } else if constexpr (form == Form::kPairs) {
            store(surplus + half * 8, sum);
        }
    }
}

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

// 32 k to `count` numbers at out; kPairs: words of 4 in the order 0 2, 1 3.
inline void store_order(__m256i bytes, int bits, Form form, int count, int8_t* out) {
    int8_t some[64];
    int8_t* to = count == 32 ? out : some;
    if (form != Form::kPairs) {
        store(to, permute(bytes, bits));
    } else {
        const __m256i swap = _mm256_setr_epi8(0, 2, 1, 3, 4, 6, 5, 7, 8, 10, 9, 11, 12, 14, 13, 15, 0, 2, 1, 3, 4, 6, 5,
                                              7, 8, 10, 9, 11, 12, 14, 13, 15);
        const __m256i ordered = _mm256_shuffle_epi8(bytes, swap);
        store(to, _mm256_cvtepi8_epi16(_mm256_castsi256_si128(ordered)));
        store(to + 32, _mm256_cvtepi8_epi16(_mm256_extracti128_si256(ordered, 1)));
    }
    if (to == some) {
        for (int i = 0; i < count * number_bytes(form); ++i) {
            out[i] = some[i];
        }
    }
}

}  // namespace

void int8_panel_avx2(const CodeRows& codes, const Stretch& run, uint8_t mask, Form form, uint8_t* panel,
                     int32_t* surplus) {
    switch (codes.bits) {
    case 1: return int8_panel_as<1, Form::kCodes>(codes, run, mask, panel, surplus);
    case 2: return int8_panel_as<2, Form::kCodes>(codes, run, mask, panel, surplus);
    case 4: return int8_panel_as<4, Form::kCodes>(codes, run, mask, panel, surplus);
    default: break;
    }
    switch (form) {
    case Form::kCodes: return int8_panel_as<8, Form::kCodes>(codes, run, mask, panel, surplus);
    case Form::kFours: return int8_panel_as<8, Form::kFours>(codes, run, mask, panel, surplus);
    case Form::kPairs: return int8_panel_as<8, Form::kPairs>(codes, run, mask, panel, surplus);
    }
}

bool fours_fit_avx2(const uint8_t* row, int64_t count, uint8_t mask) {
    const __m256i keep = _mm256_set1_epi8(static_cast<char>(mask));
    const __m256i middle = _mm256_set1_epi8(static_cast<char>(middle_of(mask)));
    const __m256i ones = _mm256_set1_epi8(1);
    __m256i most = _mm256_setzero_si256();
    const auto add = [&](__m256i codes) {
        const __m256i sizes = _mm256_abs_epi8(_mm256_sub_epi8(_mm256_and_si256(codes, keep), middle));
        const __m256i pairs = _mm256_maddubs_epi16(sizes, ones);
        // k and k + 1 meet k + 4 and k + 5: two steps of a panel.
        most = _mm256_max_epi16(most, _mm256_add_epi16(pairs, _mm256_srli_epi64(pairs, 32)));
    };
    int64_t k = 0;
    for (; k + 32 <= count; k += 32) {
        add(load(row + k));
    }
    if (k < count) {
        uint8_t some[32];
        for (int i = 0; i < 32; ++i) {
            some[i] = k + i < count ? row[k + i] : static_cast<uint8_t>(middle_of(mask));
        }
        add(load(some));
    }
    return _mm256_testz_si256(_mm256_cmpgt_epi16(most, _mm256_set1_epi16(128)), _mm256_set1_epi8(-1)) != 0;
}

XSums pack_int8_avx2(const int8_t* x, const Stretch& run, int bits, Form form, int8_t* out) {
    const int bytes = number_bytes(form);
    const __m256i offset = _mm256_set1_epi8(form == Form::kFours ? -128 : 0);
    __m256i sum = _mm256_setzero_si256();
    __m256i pairs = _mm256_setzero_si256();
    const auto add = [&](__m256i numbers) {
        if (form == Form::kPairs) {
            const __m256i even = _mm256_srai_epi16(_mm256_slli_epi16(numbers, 8), 8);
            pairs = _mm256_add_epi32(pairs, _mm256_madd_epi16(even, _mm256_srai_epi16(numbers, 8)));
        }
        sum = _mm256_add_epi32(sum, fours(numbers));
    };
    int64_t k = 0;
    for (; k + 32 <= run.count; k += 32) {
        const __m256i numbers = load(x + run.first + k);
        add(numbers);
        store_order(_mm256_xor_si256(numbers, offset), bits, form, 32, out + k * bytes);
    }
    const int64_t size = run.steps * 4;
    if (k < size) {
        int8_t tail[32] = {};
        int8_t flip[32] = {};
        for (int64_t i = k; i < run.count; ++i) {
            tail[i - k] = x[run.first + i];
            flip[i - k] = form == Form::kFours ? -128 : 0;
        }
        add(load(tail));
        const __m256i numbers = _mm256_xor_si256(load(tail), load(flip));
        store_order(numbers, bits, form, static_cast<int>(size - k), out + k * bytes);
    }
    return {total(sum), total(pairs)};
}

}  // namespace fogzo
