// Kernels of quantize and dequantize: four elements a thread, striding over the array.
#pragma once
#include "four.cuh"

namespace fogzo {

// codes [count] uint8: index of value(x), x = w * (1/a).
__global__ void __launch_bounds__(kThreads)
    quantize_kernel(const float* w, Scales scales, uint8_t* codes, int64_t count, Grid grid, bool vector) {
    const int64_t stride = int64_t(4) * kThreads * gridDim.x;
    for (int64_t k = 4 * (int64_t(kThreads) * blockIdx.x + threadIdx.x); k < count; k += stride) {
        const int n = count - k < 4 ? static_cast<int>(count - k) : 4;
        const Four latent = load_four(w, k, n, vector);
        const Four inverse = inverses(scales.at(k, n));
        FourCodes code;
        for (int c = 0; c < 4; ++c) {
            code.of[c] = code_of(grid, latent.of[c] * inverse.of[c]);
        }
        store_codes(codes, k, n, vector, code);
    }
}

// out [count] float32: a * value(code).
__global__ void __launch_bounds__(kThreads)
    dequantize_kernel(const uint8_t* codes, Scales scales, float* out, int64_t count, Grid grid, bool vector) {
    const int64_t stride = int64_t(4) * kThreads * gridDim.x;
    for (int64_t k = 4 * (int64_t(kThreads) * blockIdx.x + threadIdx.x); k < count; k += stride) {
        const int n = count - k < 4 ? static_cast<int>(count - k) : 4;
        const FourCodes code = load_codes(codes, k, n, vector);
        const Four a = scales.at(k, n);
        Four value;
        for (int c = 0; c < 4; ++c) {
            value.of[c] = a.of[c] * value_of(grid, code.of[c]);
        }
        store_four(out, k, n, vector, value);
    }
}

}  // namespace fogzo
