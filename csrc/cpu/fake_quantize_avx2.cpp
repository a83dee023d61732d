// Compiled with AVX2: no std:: templates and no shared non-static functions here.
#include "avx2.h"
#include "kernels.h"
#include "sum.h"

namespace fogzo {
namespace {

// The hardware's own prefetcher stops at each page; outputs are fetched as well, since a store reads
// its line first. An address past the end does no harm.
constexpr int kAhead = 512;  // elements

inline void fetch(const float* at) { _mm_prefetch(reinterpret_cast<const char*>(at + kAhead), _MM_HINT_T0); }

struct Bounds {
    __m256 shift;
    __m256 low;
    __m256 high;
    __m256 least;
    __m256 most;
};

inline Bounds bounds_of(const Grid& grid) {
    return {_mm256_set1_ps(grid.shift), _mm256_set1_ps(grid.low), _mm256_set1_ps(grid.high), _mm256_set1_ps(grid.least),
            _mm256_set1_ps(grid.most)};
}

// NaN gives NaN: minimum and maximum return their second operand where one is NaN. Rounding by
// addition gives +0 for the value zero.
template <bool sign> inline __m256 value_at(__m256 x, const Bounds& b) {
    if constexpr (sign) {
        const __m256 below = _mm256_cmp_ps(x, _mm256_setzero_ps(), _CMP_LT_OQ);
        const __m256 one = _mm256_or_ps(_mm256_set1_ps(1.0f), _mm256_and_ps(below, _mm256_set1_ps(-0.0f)));
        return _mm256_blendv_ps(one, x, _mm256_cmp_ps(x, x, _CMP_UNORD_Q));
    }
    const __m256 magic = _mm256_set1_ps(kRoundToEven);
    const __m256 t = _mm256_max_ps(b.low, _mm256_min_ps(b.high, _mm256_sub_ps(x, b.shift)));
    return _mm256_add_ps(_mm256_sub_ps(_mm256_add_ps(t, magic), magic), b.shift);
}

template <bool sign> void forward_as(const float* w, float* out, int n, float a, const Grid& grid) {
    const Bounds bounds = bounds_of(grid);
    const __m256 scale = _mm256_set1_ps(a);
    const __m256 inverse = _mm256_set1_ps(1.0f / a);
    int i = 0;
    for (; i + kVector <= n; i += kVector) {
        fetch(w + i);
        fetch(out + i);
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(w + i), inverse);
        _mm256_storeu_ps(out + i, _mm256_mul_ps(scale, value_at<sign>(x, bounds)));
    }
    if (i < n) {
        kScalarFake.forward(w + i, out + i, n - i, a, grid);
    }
}

void forward(const float* w, float* out, int n, float a, const Grid& grid) {
    if (grid.kind == kSign) {
        forward_as<true>(w, out, n, a, grid);
    } else {
        forward_as<false>(w, out, n, a, grid);
    }
}

inline __m256 inside(__m256 x, __m256 low, __m256 high) {
    return _mm256_and_ps(_mm256_cmp_ps(x, low, _CMP_GE_OQ), _mm256_cmp_ps(x, high, _CMP_LE_OQ));
}

inline __m256 magnitude(__m256 x) { return _mm256_andnot_ps(_mm256_set1_ps(-0.0f), x); }

// tanh_slope of grid.h, operation by operation.
inline __m256 tanh_slopes(__m256 x) {
    const __m256 magic = _mm256_set1_ps(kRoundToEven);
    const __m256 one = _mm256_set1_ps(1.0f);
    const __m256 y = _mm256_mul_ps(_mm256_set1_ps(-2.0f), magnitude(x));
    const __m256 shifted = _mm256_add_ps(_mm256_mul_ps(y, _mm256_set1_ps(kPerLn2)), magic);
    const __m256 n = _mm256_sub_ps(shifted, magic);
    const __m256 first = _mm256_sub_ps(y, _mm256_mul_ps(n, _mm256_set1_ps(kLn2High)));
    const __m256 r = _mm256_sub_ps(first, _mm256_mul_ps(n, _mm256_set1_ps(kLn2Low)));
    __m256 power = _mm256_set1_ps(kExpTerms.of[0]);
    for (int i = 1; i < kExpTermCount; ++i) {
        power = _mm256_add_ps(_mm256_mul_ps(power, r), _mm256_set1_ps(kExpTerms.of[i]));
    }
    const __m256i exponent = _mm256_slli_epi32(_mm256_castps_si256(shifted), 23);
    const __m256 scale = _mm256_castsi256_ps(_mm256_add_epi32(exponent, _mm256_castps_si256(one)));
    const __m256 none = _mm256_cmp_ps(y, _mm256_set1_ps(kLowestExponent), _CMP_LT_OQ);
    const __m256 e = _mm256_andnot_ps(none, _mm256_mul_ps(power, scale));
    const __m256 sum = _mm256_add_ps(one, e);
    return _mm256_div_ps(_mm256_mul_ps(_mm256_set1_ps(4.0f), e), _mm256_mul_ps(sum, sum));
}

template <int surrogate, bool sign> inline __m256 slope_times(__m256 grad, __m256 x, const Bounds& b) {
    const __m256 one = _mm256_set1_ps(1.0f);
    if constexpr (surrogate == kIdentity) {
        return grad;
    }
    if constexpr (surrogate == kClipped) {
        return _mm256_and_ps(inside(x, b.least, b.most), grad);
    }
    if constexpr (surrogate == kTrust) {
        const __m256 distance = magnitude(_mm256_sub_ps(value_at<sign>(x, b), x));
        return _mm256_and_ps(_mm256_cmp_ps(distance, _mm256_set1_ps(0.5f), _CMP_LE_OQ), grad);
    }
    if constexpr (surrogate == kTanh) {
        return _mm256_mul_ps(grad, tanh_slopes(x));
    }
    const __m256 mask = inside(x, _mm256_set1_ps(-1.0f), one);
    if constexpr (surrogate == kHardtanh) {
        return _mm256_and_ps(mask, grad);
    }
    const __m256 two = _mm256_set1_ps(2.0f);
    const __m256 slope = _mm256_sub_ps(two, _mm256_mul_ps(two, magnitude(x)));
    return _mm256_and_ps(mask, _mm256_mul_ps(grad, slope));
}

// 8 sums in two vectors: lanes 0 to 3 and 4 to 7.
struct Sums {
    __m256d first;
    __m256d second;

    inline void add(__m256 a, __m256 b) {
        first = _mm256_add_pd(first, _mm256_mul_pd(_mm256_cvtps_pd(_mm256_castps256_ps128(a)),
                                                   _mm256_cvtps_pd(_mm256_castps256_ps128(b))));
        second = _mm256_add_pd(second, _mm256_mul_pd(_mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)),
                                                     _mm256_cvtps_pd(_mm256_extractf128_ps(b, 1))));
    }

    inline void add(__m256 a) {
        first = _mm256_add_pd(first, _mm256_cvtps_pd(_mm256_castps256_ps128(a)));
        second = _mm256_add_pd(second, _mm256_cvtps_pd(_mm256_extractf128_ps(a, 1)));
    }
};

template <int surrogate, bool sign, bool with_sum>
double backward_as(const Weights& run, const Grid& grid, float* grad_w) {
    const Bounds bounds = bounds_of(grid);
    const float inverse_of_a = 1.0f / run.a;
    const __m256 inverse = _mm256_set1_ps(inverse_of_a);
    Sums sums = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    int i = 0;
    for (; i + kVector <= run.n; i += kVector) {
        fetch(run.w + i);
        fetch(run.grad + i);
        fetch(grad_w + i);
        const __m256 x = _mm256_mul_ps(_mm256_loadu_ps(run.w + i), inverse);
        const __m256 grad = _mm256_loadu_ps(run.grad + i);
        if constexpr (with_sum) {
            const __m256 value = value_at<sign>(x, bounds);
            const __m256 within = inside(x, bounds.least, bounds.most);
            sums.add(grad, _mm256_blendv_ps(value, _mm256_sub_ps(value, x), within));
        }
        _mm256_storeu_ps(grad_w + i, slope_times<surrogate, sign>(grad, x, bounds));
    }
    double lanes[kLanesOfSum];
    _mm256_storeu_pd(lanes, sums.first);
    _mm256_storeu_pd(lanes + 4, sums.second);
    for (int lane = 0; i < run.n; ++i, ++lane) {
        const float x = run.w[i] * inverse_of_a;
        if constexpr (with_sum) {
            lanes[lane] += static_cast<double>(run.grad[i]) * static_cast<double>(scale_slope(grid, x));
        }
        grad_w[i] = surrogate_gradient(grid, surrogate, x, run.grad[i]);
    }
    return sum_of_lanes(lanes);
}

template <int surrogate, bool sign>
double backward_of(const Weights& run, const Grid& grid, bool with_sum, float* grad_w) {
    return with_sum ? backward_as<surrogate, sign, true>(run, grid, grad_w)
                    : backward_as<surrogate, sign, false>(run, grid, grad_w);
}

double backward(const Weights& run, const Grid& grid, int surrogate, bool with_sum, float* grad_w) {
    const bool sign = grid.kind == kSign;
    switch (surrogate) {
    case kIdentity: return backward_of<kIdentity, false>(run, grid, with_sum, grad_w);
    case kClipped: return backward_of<kClipped, false>(run, grid, with_sum, grad_w);
    case kHardtanh: return backward_of<kHardtanh, true>(run, grid, with_sum, grad_w);
    case kTanh: return backward_of<kTanh, true>(run, grid, with_sum, grad_w);
    case kApproxSign: return backward_of<kApproxSign, true>(run, grid, with_sum, grad_w);
    default:
        return sign ? backward_of<kTrust, true>(run, grid, with_sum, grad_w)
                    : backward_of<kTrust, false>(run, grid, with_sum, grad_w);
    }
}

double square_sum(const float* grad, int n, float factor) {
    const __m256 scale = _mm256_set1_ps(factor);
    Sums sums = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    int i = 0;
    for (; i + kVector <= n; i += kVector) {
        const __m256 whitened = _mm256_mul_ps(_mm256_loadu_ps(grad + i), scale);
        sums.add(whitened, whitened);
    }
    double lanes[kLanesOfSum];
    _mm256_storeu_pd(lanes, sums.first);
    _mm256_storeu_pd(lanes + 4, sums.second);
    for (int lane = 0; i < n; ++i, ++lane) {
        const double whitened = static_cast<double>(grad[i] * factor);
        lanes[lane] += whitened * whitened;
    }
    return sum_of_lanes(lanes);
}

double abs_sum(const float* w, int n) {
    Sums sums = {_mm256_setzero_pd(), _mm256_setzero_pd()};
    int i = 0;
    for (; i + kVector <= n; i += kVector) {
        sums.add(magnitude(_mm256_loadu_ps(w + i)));
    }
    double lanes[kLanesOfSum];
    _mm256_storeu_pd(lanes, sums.first);
    _mm256_storeu_pd(lanes + 4, sums.second);
    for (int lane = 0; i < n; ++i, ++lane) {
        lanes[lane] += static_cast<double>(fabsf(w[i]));
    }
    return sum_of_lanes(lanes);
}

// As integers: a NaN without its sign is more than infinity, and stays.
float abs_max(const float* w, int n) {
    __m256i most = _mm256_setzero_si256();
    int i = 0;
    for (; i + kVector <= n; i += kVector) {
        most = _mm256_max_epi32(most, _mm256_castps_si256(magnitude(_mm256_loadu_ps(w + i))));
    }
    float lanes[2 * kVector] = {};
    _mm256_storeu_ps(lanes, _mm256_castsi256_ps(most));
    for (int lane = kVector; i < n; ++i, ++lane) {
        lanes[lane] = w[i];
    }
    return kScalarFake.abs_max(lanes, 2 * kVector);
}

}  // namespace

const FakeQuantizeKernels kAvx2Fake = {forward, backward, square_sum, abs_sum, abs_max};

}  // namespace fogzo
