// Compiled with AVX2: no std:: templates and no shared non-static functions here.
#include "avx2.h"
#include "fogzo/estimator.h"
#include "kernels.h"
#include "perturb_loops.h"

namespace fogzo {
namespace {

struct Pair {
    __m256i plus;
    __m256i minus;
};

// Without the minimum of position_of, which takes an eighth of the time: what is too large for an
// integer becomes the lowest byte. So do NaN and what is as low as that, which should.
constexpr char kLost = -128;

template <bool sign, bool careful> inline __m256i position(__m256 y, __m256 shift) {
    if constexpr (sign || careful) {
        return position_of<sign>(y, shift);
    }
    return _mm256_cvtps_epi32(_mm256_sub_ps(y, shift));
}

template <bool sign, bool careful> inline Pair positions(const Run& run, int i, __m256 shift) {
    const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(run.w + i), _mm256_set1_ps(run.inverse));
    const __m256 whitened = _mm256_mul_ps(_mm256_loadu_ps(run.grad + i), _mm256_set1_ps(run.factor));
    const __m256 d = _mm256_add_ps(_mm256_mul_ps(_mm256_set1_ps(run.along), whitened), _mm256_loadu_ps(run.noise + i));
    return {position<sign, careful>(_mm256_add_ps(x, d), shift), position<sign, careful>(_mm256_sub_ps(x, d), shift)};
}

template <bool sign, bool careful> inline Pair two_positions(const Run& run, int i, __m256 shift) {
    const Pair first = positions<sign, careful>(run, i, shift);
    const Pair second = positions<sign, careful>(run, i + kVector, shift);
    return {_mm256_packs_epi32(first.plus, second.plus), _mm256_packs_epi32(first.minus, second.minus)};
}

// While a tile's noise is drawn no weight is read, and the hardware's own prefetcher stops at each
// page, so memory would stand still half of the time. An address past the end does no harm.
constexpr int kAhead = 2048;  // elements

inline void fetch_group(const float* at) {
    for (int i = 0; i < kGroup; i += 16) {
        _mm_prefetch(reinterpret_cast<const char*>(at + i), _MM_HINT_T1);
    }
}

// run.n is a multiple of 32 here. False: some position was lost, and codes may be wrong.
template <bool sign, bool both, bool careful>
bool whole_groups(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus) {
    const __m256 shift = _mm256_set1_ps(grid.shift);
    const __m256i low = bytes_of(grid.low);
    const __m256i high = bytes_of(grid.high);
    __m256i lowest = _mm256_setzero_si256();
    for (int i = 0; i < run.n; i += kGroup) {
        fetch_group(run.w + i + kAhead);
        fetch_group(run.grad + i + kAhead);
        const Pair first = two_positions<sign, careful>(run, i, shift);
        const Pair second = two_positions<sign, careful>(run, i + 2 * kVector, shift);
        const __m256i bytes = _mm256_packs_epi16(first.plus, second.plus);
        lowest = _mm256_min_epi8(lowest, bytes);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(plus + i), codes_of<sign>(bytes, low, high));
        if constexpr (both) {
            const __m256i others = _mm256_packs_epi16(first.minus, second.minus);
            lowest = _mm256_min_epi8(lowest, others);
            _mm256_storeu_si256(reinterpret_cast<__m256i*>(minus + i), codes_of<sign>(others, low, high));
        }
    }
    return careful || _mm256_movemask_epi8(_mm256_cmpeq_epi8(lowest, _mm256_set1_epi8(kLost))) == 0;
}

template <bool sign, bool both> void groups(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus) {
    const bool has_lost = grid.low <= kLost;  // as a position of its own
    if (has_lost || !whole_groups<sign, both, sign>(run, grid, plus, minus)) {
        whole_groups<sign, both, true>(run, grid, plus, minus);
    }
}

template <bool sign, bool both> void codes_as(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus) {
    Run part = run;
    part.n = run.n / kGroup * kGroup;
    groups<sign, both>(part, grid, plus, minus);
    const int done = part.n;
    if (done == run.n) {
        return;
    }
    float w[kGroup] = {};
    float grad[kGroup] = {};
    const size_t bytes = sizeof(float) * static_cast<size_t>(run.n - done);
    __builtin_memcpy(w, run.w + done, bytes);
    __builtin_memcpy(grad, run.grad + done, bytes);
    part = {w, grad, run.noise + done, kGroup, run.inverse, run.factor, run.along};
    groups<sign, both>(part, grid, plus + done, both ? minus + done : nullptr);
}

void codes(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus) {
    if (grid.kind == kSign) {
        minus != nullptr ? codes_as<true, true>(run, grid, plus, minus) : codes_as<true, false>(run, grid, plus, minus);
    } else {
        minus != nullptr ? codes_as<false, true>(run, grid, plus, minus)
                         : codes_as<false, false>(run, grid, plus, minus);
    }
}

template <bool first> void accumulate_as(const Run& run, float difference, float* sum) {
    const __m256 factor = _mm256_set1_ps(run.factor);
    const __m256 along = _mm256_set1_ps(run.along);
    const __m256 weight = _mm256_set1_ps(difference);
    int i = 0;
    for (; i + kGroup <= run.n; i += kGroup) {
        if constexpr (first) {
            fetch_group(run.grad + i + kAhead);
        }
        for (int v = i; v < i + kGroup; v += kVector) {
            const __m256 whitened = _mm256_mul_ps(_mm256_loadu_ps(run.grad + v), factor);
            const __m256 d = _mm256_add_ps(_mm256_mul_ps(along, whitened), _mm256_loadu_ps(run.noise + v));
            const __m256 term = _mm256_mul_ps(weight, d);
            _mm256_storeu_ps(sum + v, first ? term : _mm256_add_ps(_mm256_loadu_ps(sum + v), term));
        }
    }
    const Run rest = {run.w, run.grad + i, run.noise + i, run.n - i, run.inverse, run.factor, run.along};
    accumulate(rest, difference, first, sum + i);
}

void accumulate_ahead(const Run& run, float difference, bool first, float* sum) {
    if (first) {
        accumulate_as<true>(run, difference, sum);
    } else {
        accumulate_as<false>(run, difference, sum);
    }
}

}  // namespace

const PerturbKernels kAvx2Perturb = {codes, moved, accumulate_ahead, scaled};

}  // namespace fogzo
