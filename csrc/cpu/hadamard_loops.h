// Stages of the Hadamard rotation; the portable file and the AVX2 file each compile their own copy.
#pragma once
#include <stdint.h>

#include "fogzo/macros.h"

namespace fogzo {

// Each pair (p, q) at that stride becomes (p + q, p - q).
FOGZO_FN void stage(float* x, int64_t m, int64_t stride) {
    for (int64_t base = 0; base < m; base += 2 * stride) {
        float* __restrict p = x + base;
        float* __restrict q = p + stride;
        for (int64_t i = 0; i < stride; ++i) {
            const float sum = p[i] + q[i];
            q[i] = p[i] - q[i];
            p[i] = sum;
        }
    }
}

FOGZO_FN void scale_all(float* x, int64_t m, float factor) {
    for (int64_t i = 0; i < m; ++i) {
        x[i] = x[i] * factor;
    }
}

}  // namespace fogzo
