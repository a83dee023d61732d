// Kernels of hadamard: the reference's stages in its order. A column c takes part in the stage of stride s where
// c < width - width % (2 s), 2 s <= block: a remainder is cut into its largest powers of two.
#pragma once
#include "four.cuh"

namespace fogzo {

constexpr int kRotateThreads = 256;
constexpr int64_t kRotateChunk = 4096;  // columns that a block of threads holds

// The block size of a column: the largest power of two up to `block` whose whole blocks reach it.
__device__ __forceinline__ int64_t size_of_column(int64_t column, int64_t width, int64_t block) {
    int64_t size = block;
    while (column >= width - width % size) {
        size /= 2;
    }
    return size;
}

struct RotateJob {
    const float* x;
    float* out;  // may be x
    int64_t rows;
    int64_t width;
    int64_t block;
    int64_t chunks;     // of a row
    float factors[21];  // 2^(-i / 2)
    bool vector;
};

__device__ __forceinline__ int log2_of(int64_t size) { return __popcll(static_cast<unsigned long long>(size - 1)); }

// Stages of stride 1 .. 2048 of up to 4096 columns of a row; the factor where those are all.
__global__ void __launch_bounds__(kRotateThreads) hadamard_kernel(RotateJob job) {
    __shared__ float held[kRotateChunk];
    for (int64_t part = blockIdx.x; part < job.rows * job.chunks; part += gridDim.x) {
        const int64_t row = part / job.chunks;
        const int64_t first = (part - row * job.chunks) * kRotateChunk;
        const int64_t at = row * job.width + first;
        const int width = static_cast<int>(job.width - first < kRotateChunk ? job.width - first : kRotateChunk);
        __syncthreads();  // what an earlier part held has been stored
        for (int k = 4 * static_cast<int>(threadIdx.x); k < width; k += 4 * kRotateThreads) {
            const int n = width - k < 4 ? width - k : 4;
            const Four four = load_four(job.x, at + k, n, job.vector);
            for (int c = 0; c < n; ++c) {
                held[k + c] = four.of[c];
            }
        }
        for (int stride = 1; 2 * stride <= width && 2 * stride <= job.block; stride *= 2) {
            __syncthreads();
            for (int pair = static_cast<int>(threadIdx.x); pair < width / (2 * stride) * stride;
                 pair += kRotateThreads) {
                const int p = pair / stride * 2 * stride + pair % stride;
                const float sum = held[p] + held[p + stride];
                held[p + stride] = held[p] - held[p + stride];
                held[p] = sum;
            }
        }
        __syncthreads();
        for (int k = 4 * static_cast<int>(threadIdx.x); k < width; k += 4 * kRotateThreads) {
            const int n = width - k < 4 ? width - k : 4;
            Four four = {};
            for (int c = 0; c < n; ++c) {
                const int64_t size = size_of_column(first + k + c, job.width, job.block);
                four.of[c] = size > kRotateChunk ? held[k + c] : held[k + c] * job.factors[log2_of(size)];
            }
            store_four(job.out, at + k, n, job.vector, four);
        }
    }
}

// In place, one stage of stride 4096 or more; the factor behind a column's last.
__global__ void __launch_bounds__(kRotateThreads) hadamard_stage_kernel(RotateJob job, int64_t stride) {
    const int64_t pairs = job.width / (2 * stride) * stride;  // of a row
    const int64_t step = int64_t(kRotateThreads) * gridDim.x;
    for (int64_t pair = int64_t(kRotateThreads) * blockIdx.x + threadIdx.x; pair < job.rows * pairs; pair += step) {
        const int64_t row = pair / pairs;
        const int64_t number = pair - row * pairs;
        const int64_t column = number / stride * 2 * stride + number % stride;
        float* p = job.out + row * job.width + column;
        float* q = p + stride;
        float sum = *p + *q;
        float difference = *p - *q;
        if (size_of_column(column, job.width, job.block) == 2 * stride) {
            sum = sum * job.factors[log2_of(2 * stride)];
            difference = difference * job.factors[log2_of(2 * stride)];
        }
        *p = sum;
        *q = difference;
    }
}

}  // namespace fogzo
