// Kernels of fake_quantize and its backward pass.
#pragma once
#include "four.cuh"

namespace fogzo {

// out [count] float32: a * value(x), NaN where x is; out may be w.
__global__ void __launch_bounds__(kThreads)
    fake_quantize_kernel(const float* w, Scales scales, float* out, int64_t count, Grid grid, bool vector) {
    const int64_t stride = int64_t(4) * kThreads * gridDim.x;
    for (int64_t k = 4 * (int64_t(kThreads) * blockIdx.x + threadIdx.x); k < count; k += stride) {
        const int n = count - k < 4 ? static_cast<int>(count - k) : 4;
        const Four latent = load_four(w, k, n, vector);
        const Four a = scales.at(k, n);
        const Four inverse = inverses(a);
        Four value;
        for (int c = 0; c < 4; ++c) {
            const float x = latent.of[c] * inverse.of[c];
            value.of[c] = x == x ? a.of[c] * value_of(grid, code_of(grid, x)) : x;
        }
        store_four(out, k, n, vector, value);
    }
}

struct BackwardJob {
    const float* grad;
    const float* w;
    float* grad_w;  // may be grad
    Scales scales;
    double* parts;      // [scales, chunks] float64, or null
    float* grad_scale;  // [scales], written here where one chunk holds a scale's elements; may be null
    int64_t count;
    int64_t length;  // elements of one scale
    int64_t chunks;  // of one scale
    int64_t chunk;   // elements of a chunk, which one warp takes
    double share;    // sqrt(numel Q_P)
    Grid grid;
    int surrogate;
    bool vector;
};

// grad_w = grad * h'(x), and each chunk's sum of grad * t, in one pass; an order that depends on the sizes alone.
__global__ void __launch_bounds__(kThreads) fake_quantize_backward_kernel(BackwardJob job) {
    const int64_t warps = int64_t(kThreads / 32) * gridDim.x;
    const int64_t all = job.count / job.length * job.chunks;
    for (int64_t part = (int64_t(kThreads) * blockIdx.x + threadIdx.x) / 32; part < all; part += warps) {
        const int64_t index = part / job.chunks;
        const int64_t begin = (part - index * job.chunks) * job.chunk;
        const int64_t left = job.length - begin;
        const int64_t end = left < job.chunk ? left : job.chunk;
        const int64_t first = index * job.length + begin;
        double sum = 0.0;
        for (int64_t at = 4 * (threadIdx.x % 32); at < end; at += 4 * 32) {
            const int n = end - at < 4 ? static_cast<int>(end - at) : 4;
            const Four latent = load_four(job.w, first + at, n, job.vector);
            const Four grad = load_four(job.grad, first + at, n, job.vector);
            const Four inverse = inverses(job.scales.at(first + at, n));
            Four slope;
            for (int c = 0; c < 4; ++c) {
                const float x = latent.of[c] * inverse.of[c];
                slope.of[c] = surrogate_gradient(job.grid, job.surrogate, x, grad.of[c]);
                if (c < n && job.share > 0.0) {
                    sum += static_cast<double>(grad.of[c]) * static_cast<double>(scale_slope(job.grid, x));
                }
            }
            store_four(job.grad_w, first + at, n, job.vector, slope);
        }
        if (job.share > 0.0) {
            sum = warp_sum(sum);
            if (threadIdx.x % 32 == 0) {
                if (job.chunks == 1) {
                    job.grad_scale[index] = static_cast<float>(sum / job.share);
                } else {
                    job.parts[part] = sum;
                }
            }
        }
    }
}

// grad_scale [scales]: the chunks of each added up; a block a scale.
__global__ void __launch_bounds__(kThreads)
    scale_gradient_kernel(const double* parts, float* grad_scale, int64_t scales, int64_t chunks, double share) {
    for (int64_t index = blockIdx.x; index < scales; index += gridDim.x) {
        double sum = 0.0;
        for (int64_t chunk = threadIdx.x; chunk < chunks; chunk += kThreads) {
            sum += parts[index * chunks + chunk];
        }
        sum = block_sum<kThreads>(sum);
        if (threadIdx.x == 0) {
            grad_scale[index] = static_cast<float>(sum / share);
        }
    }
}

}  // namespace fogzo
