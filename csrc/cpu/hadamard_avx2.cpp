// Compiled with AVX2: no std:: templates and no shared non-static functions here.
#include "avx2.h"
#include "hadamard_loops.h"
#include "kernels.h"

namespace fogzo {
namespace {

// Strides 1, 2 and 4, inside one vector.
inline __m256 three_stages(__m256 v) {
    __m256 p = _mm256_moveldup_ps(v);
    __m256 q = _mm256_movehdup_ps(v);
    v = _mm256_blend_ps(_mm256_add_ps(p, q), _mm256_sub_ps(p, q), 0xAA);
    p = _mm256_shuffle_ps(v, v, 0x44);
    q = _mm256_shuffle_ps(v, v, 0xEE);
    v = _mm256_blend_ps(_mm256_add_ps(p, q), _mm256_sub_ps(p, q), 0xCC);
    p = _mm256_permute2f128_ps(v, v, 0x00);
    q = _mm256_permute2f128_ps(v, v, 0x11);
    return _mm256_blend_ps(_mm256_add_ps(p, q), _mm256_sub_ps(p, q), 0xF0);
}

void rotate(float* x, int64_t m, float factor) {
    int64_t stride = 1;
    if (m >= kVector) {
        for (int64_t i = 0; i < m; i += kVector) {
            _mm256_storeu_ps(x + i, three_stages(_mm256_loadu_ps(x + i)));
        }
        stride = kVector;
    }
    for (; stride < m; stride *= 2) {
        stage(x, m, stride);
    }
    scale_all(x, m, factor);
}

}  // namespace

const HadamardKernels kAvx2Hadamard = {rotate};

}  // namespace fogzo
