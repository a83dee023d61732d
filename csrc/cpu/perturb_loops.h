// Loops of perturb_quantize and assemble_gradient that a compiler turns into vectors by itself: the
// portable file and the AVX2 file each compile their own copy.
#pragma once
#include "kernels.h"

namespace fogzo {

// d = A * gw + B * (e u)
FOGZO_FN float direction(const Run& run, int i) { return run.along * (run.grad[i] * run.factor) + run.noise[i]; }

FOGZO_FN void moved(const Run& run, float a, float* __restrict plus, float* __restrict minus) {
    if (minus == nullptr) {
        for (int i = 0; i < run.n; ++i) {
            plus[i] = run.w[i] + a * direction(run, i);
        }
        return;
    }
    for (int i = 0; i < run.n; ++i) {
        const float shift = a * direction(run, i);
        plus[i] = run.w[i] + shift;
        minus[i] = run.w[i] - shift;
    }
}

FOGZO_FN void accumulate(const Run& run, float difference, bool first, float* __restrict sum) {
    if (first) {
        for (int i = 0; i < run.n; ++i) {
            sum[i] = difference * direction(run, i);
        }
        return;
    }
    for (int i = 0; i < run.n; ++i) {
        sum[i] = sum[i] + difference * direction(run, i);
    }
}

FOGZO_FN void scaled(const float* __restrict sum, int n, float gain, float* __restrict out) {
    for (int i = 0; i < n; ++i) {
        out[i] = sum[i] * gain;
    }
}

}  // namespace fogzo
