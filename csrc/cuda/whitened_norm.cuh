// Kernels of whitened_norm: float64 sums of chunks, then their sum; the order depends on the sizes alone.
#pragma once
#include "table.cuh"

namespace fogzo {

constexpr int64_t kNormChunk = 16384;  // elements that one block adds up
constexpr int kTotalThreads = 512;
constexpr int kMostNorms = 2 * kMostTensors;  // their rows are less than half as long

struct NormRow {
    const float* grad;
    Scales scales;
    int64_t count;
    int64_t first_block;
    float e;
    bool vector;
};

struct NormJob {
    NormRow rows[kMostNorms];
    int tensors;
    int64_t blocks;
    double* parts;
};
static_assert(sizeof(NormJob) <= kMostArgumentBytes);

// parts [blocks]: sum of float64(gw)^2, gw = g * (a * e), over one chunk of one tensor.
__global__ void __launch_bounds__(kThreads) whitened_norm_part_kernel(FOGZO_CONSTANT(NormJob) job) {
    const NormRow& row = row_of(job.rows, job.tensors, blockIdx.x);
    const int64_t begin = (blockIdx.x - row.first_block) * kNormChunk;
    const int64_t end = row.count - begin < kNormChunk ? row.count : begin + kNormChunk;
    double sum = 0.0;
    for (int64_t k = begin + 4 * threadIdx.x; k < end; k += 4 * kThreads) {
        const int n = end - k < 4 ? static_cast<int>(end - k) : 4;
        const Four grad = load_four(row.grad, k, n, row.vector);
        const Four a = row.scales.at(k, n);
        for (int c = 0; c < 4; ++c) {
            const double whitened = static_cast<double>(grad.of[c] * whitening(a.of[c], row.e));
            sum += c < n ? whitened * whitened : 0.0;
        }
    }
    sum = block_sum<kThreads>(sum);
    if (threadIdx.x == 0) {
        job.parts[blockIdx.x] = sum;
    }
}

// out [1] = float32(sqrt(sum of parts [count])); one block.
__global__ void __launch_bounds__(kTotalThreads)
    whitened_norm_total_kernel(const double* parts, float* out, int64_t count) {
    double sum = 0.0;
    for (int64_t part = threadIdx.x; part < count; part += kTotalThreads) {
        sum += parts[part];
    }
    sum = block_sum<kTotalThreads>(sum);
    if (threadIdx.x == 0) {
        *out = static_cast<float>(sqrt(sum));
    }
}

}  // namespace fogzo
