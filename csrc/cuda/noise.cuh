// Kernel of the noise operation: one thread draws one Philox block and writes all it serves.
#pragma once
#include <cuda_runtime.h>

#include "fogzo/noise.h"

namespace fogzo {

struct NoiseJob {
    float* out;          // [rows, cols]
    const float* table;  // [32768], read by tanh alone
    int64_t rows;
    int64_t cols;
    int64_t offset;
    int64_t row_pitch;
    const int64_t* seed_at;  // not null: read here, in place of the stream's own
    const int64_t* step_at;
    Stream stream;
    float e;
};

// Elements that the 128 blocks of one thread block serve.
template <int noise> constexpr int64_t span_of = noise == kRademacher ? kBitTile : kTile;

// Grid: x over the spans of a row, y over rows; both strided, so any size fits.
template <int surrogate, int noise> __global__ void __launch_bounds__(kLanes) noise_kernel(NoiseJob job) {
    constexpr int64_t span = span_of<noise>;
    if (job.seed_at != nullptr) {
        job.stream.seed = static_cast<uint64_t>(*job.seed_at);
    }
    if (job.step_at != nullptr) {
        job.stream.step = static_cast<uint32_t>(*job.step_at);
    }
    for (int64_t row = blockIdx.y; row < job.rows; row += gridDim.y) {
        const int64_t first = job.offset + row * job.row_pitch;
        const int64_t last = first + job.cols;
        for (int64_t tile = first / span + blockIdx.x; tile * span < last; tile += gridDim.x) {
            const Words words = philox(job.stream, static_cast<uint32_t>(tile) * kLanes + threadIdx.x);
#pragma unroll 8
            for (int j = 0; j < static_cast<int>(span / kLanes); ++j) {
                const int64_t k = tile * span + j * kLanes + threadIdx.x;
                if (k < first || k >= last) {
                    continue;
                }
                float bins;
                if constexpr (noise == kRademacher) {
                    bins = bit_of(words, j) != 0u ? -job.e : job.e;
                } else {
                    bins = published_noise(half_of(words, j), surrogate, job.table);
                }
                job.out[row * job.cols + (k - first)] = bins / job.e;
            }
        }
    }
}

}  // namespace fogzo
