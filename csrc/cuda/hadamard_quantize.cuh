// Kernel of hadamard_quantize: a block of threads a row, a warp a Hadamard block of 128 columns in its registers. The
// row is read twice, the second time from the cache.
#pragma once
#include "four.cuh"

namespace fogzo {

constexpr int kQuestThreads = 256;
constexpr int64_t kQuestBlock = 128;  // columns

struct QuestJob {
    const float* w;
    float* values;   // or null
    uint8_t* codes;  // or null
    float* scale;
    int64_t rows;
    int64_t cols;
    double multiple;
    float factors[8];  // 2^(-i / 2)
    Grid grid;
    bool vector;
};

// Columns first + 4 lane .. + 3 of a row, rotated: the stages of stride 1 .. 64, each only where a whole block of twice
// the stride is left of the row. All lanes must come.
__device__ __forceinline__ Four rotated(const QuestJob& job, const float* row, int64_t first) {
    const int64_t column = first + 4 * (threadIdx.x % 32);
    const int n = job.cols - column >= 4 ? 4 : job.cols - column > 0 ? static_cast<int>(job.cols - column) : 0;
    Four x = load_four(row, column, n, job.vector);
    Four factor = {{1.0f, 1.0f, 1.0f, 1.0f}};
#pragma unroll
    for (int stage = 0; stage < 7; ++stage) {
        const int stride = 1 << stage;
        const int64_t limit = job.cols - job.cols % (2 * stride);
        Four other;
        for (int c = 0; c < 4; ++c) {
            other.of[c] = stride < 4 ? x.of[c ^ (stride & 3)] : __shfl_xor_sync(kAllLanes, x.of[c], stride / 4);
        }
        for (int c = 0; c < 4; ++c) {
            if (column + c < limit) {
                const bool second = ((column + c) & stride) != 0;
                x.of[c] = second ? other.of[c] - x.of[c] : x.of[c] + other.of[c];
                factor.of[c] = job.factors[stage + 1];
            }
        }
    }
    for (int c = 0; c < 4; ++c) {
        x.of[c] = c < n ? x.of[c] * factor.of[c] : 0.0f;
    }
    return x;
}

__global__ void __launch_bounds__(kQuestThreads) hadamard_quantize_kernel(QuestJob job) {
    __shared__ float scale_of_row;
    const int64_t begin = threadIdx.x / 32 * kQuestBlock;
    const int64_t step = kQuestThreads / 32 * kQuestBlock;
    for (int64_t number = blockIdx.x; number < job.rows; number += gridDim.x) {
        const float* row = job.w + number * job.cols;
        double sum = 0.0;
        for (int64_t first = begin; first < job.cols; first += step) {
            const Four y = rotated(job, row, first);
            for (int c = 0; c < 4; ++c) {
                sum += static_cast<double>(y.of[c]) * static_cast<double>(y.of[c]);
            }
        }
        sum = block_sum<kQuestThreads>(sum);
        if (threadIdx.x == 0) {
            const float a = static_cast<float>(job.multiple * sqrt(sum / static_cast<double>(job.cols)));
            scale_of_row = a < kSmallestScale ? kSmallestScale : a;
            job.scale[number] = scale_of_row;
        }
        __syncthreads();
        const float a = scale_of_row;
        const float inverse = 1.0f / a;
        for (int64_t first = begin; first < job.cols; first += step) {
            const Four y = rotated(job, row, first);
            const int64_t column = first + 4 * (threadIdx.x % 32);
            const int n = job.cols - column >= 4 ? 4 : job.cols - column > 0 ? static_cast<int>(job.cols - column) : 0;
            FourCodes code;
            Four value;
            for (int c = 0; c < 4; ++c) {
                const float x = y.of[c] * inverse;
                code.of[c] = code_of(job.grid, x);
                value.of[c] = x == x ? a * value_of(job.grid, code.of[c]) : x;
            }
            if (job.values != nullptr) {
                store_four(job.values, number * job.cols + column, n, job.vector, value);
            } else {
                store_codes(job.codes, number * job.cols + column, n, job.vector, code);
            }
        }
    }
}

}  // namespace fogzo
