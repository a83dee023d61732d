// Kernels of quantize_activation: a block a row, which is read twice, the second time from the cache.
#pragma once
#include "four.cuh"

namespace fogzo {

struct ActivationJob {
    const float* x;        // [rows, cols], or null and
    const uint16_t* half;  // the bits of bfloat16
    int8_t* codes;
    float* x_scale;
    int64_t rows;
    int64_t cols;
    float q;
    bool vector;
};

__device__ __forceinline__ Four load_activation(const ActivationJob& job, int64_t k, int n) {
    if (job.x != nullptr) {
        return load_four(job.x, k, n, job.vector);
    }
    Four four = {};
    if (job.vector && n == 4) {
        const uint2 v = *reinterpret_cast<const uint2*>(job.half + k);
        four = {{__uint_as_float(v.x << 16), __uint_as_float(v.x & 0xFFFF0000u), __uint_as_float(v.y << 16),
                 __uint_as_float(v.y & 0xFFFF0000u)}};
    } else {
        for (int c = 0; c < 4; ++c) {
            if (c < n) {
                four.of[c] = __uint_as_float(static_cast<uint32_t>(job.half[k + c]) << 16);
            }
        }
    }
    return four;
}

__device__ __forceinline__ void store_signed(const ActivationJob& job, int64_t k, int n, const FourCodes& codes) {
    FourCodes bytes;
    for (int c = 0; c < 4; ++c) {
        bytes.of[c] = codes.of[c] & 0xFF;
    }
    store_codes(reinterpret_cast<uint8_t*>(job.codes), k, n, job.vector, bytes);
}

// The largest bits of |x| over a block, in every thread; those of a NaN are the largest of all.
__device__ __forceinline__ uint32_t block_max(uint32_t bits) {
    __shared__ uint32_t of_warp[kThreads / 32];
    for (int with = 16; with > 0; with /= 2) {
        const uint32_t other = __shfl_xor_sync(kAllLanes, bits, with);
        bits = other > bits ? other : bits;
    }
    __syncthreads();  // what an earlier call left has been read
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = bits;
    }
    __syncthreads();
    for (int warp = 0; warp < kThreads / 32; ++warp) {
        bits = of_warp[warp] > bits ? of_warp[warp] : bits;
    }
    return bits;
}

// codes = clamp(rne(x / a), -q, q), 0 where that is NaN; a = max |x| / q.
__global__ void __launch_bounds__(kThreads) quantize_activation_kernel(ActivationJob job) {
    for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
        const int64_t first = row * job.cols;
        uint32_t most = 0;
        for (int64_t at = 4 * threadIdx.x; at < job.cols; at += 4 * kThreads) {
            const int n = job.cols - at < 4 ? static_cast<int>(job.cols - at) : 4;
            const Four x = load_activation(job, first + at, n);
            for (int c = 0; c < 4; ++c) {
                const uint32_t bits = __float_as_uint(x.of[c]) & 0x7FFFFFFFu;
                most = bits > most ? bits : most;
            }
        }
        const float a = __uint_as_float(block_max(most)) / job.q;
        if (threadIdx.x == 0) {
            job.x_scale[row] = a;
        }
        for (int64_t at = 4 * threadIdx.x; at < job.cols; at += 4 * kThreads) {
            const int n = job.cols - at < 4 ? static_cast<int>(job.cols - at) : 4;
            const Four x = load_activation(job, first + at, n);
            FourCodes code;
            for (int c = 0; c < 4; ++c) {
                float ratio = x.of[c] / a;
                ratio = ratio == ratio ? ratio : 0.0f;
                ratio = ratio > job.q ? job.q : ratio < -job.q ? -job.q : ratio;
                code.of[c] = static_cast<int>((ratio + kRoundToEven) - kRoundToEven);
            }
            store_signed(job, first + at, n, code);
        }
    }
}

// 1 bit: codes 1 where x >= 0, -1 below, 0 where NaN; the scale is mean |x|, summed in float64.
__global__ void __launch_bounds__(kThreads) sign_activation_kernel(ActivationJob job) {
    for (int64_t row = blockIdx.x; row < job.rows; row += gridDim.x) {
        const int64_t first = row * job.cols;
        double sum = 0.0;
        for (int64_t at = 4 * threadIdx.x; at < job.cols; at += 4 * kThreads) {
            const int n = job.cols - at < 4 ? static_cast<int>(job.cols - at) : 4;
            const Four x = load_activation(job, first + at, n);
            FourCodes code;
            for (int c = 0; c < 4; ++c) {
                sum += static_cast<double>(fabsf(x.of[c]));
                code.of[c] = (x.of[c] >= 0.0f ? 1 : 0) - (x.of[c] < 0.0f ? 1 : 0);
            }
            store_signed(job, first + at, n, code);
        }
        sum = block_sum<kThreads>(sum);
        if (threadIdx.x == 0) {
            job.x_scale[row] = static_cast<float>(sum / static_cast<double>(job.cols > 0 ? job.cols : 1));
        }
    }
}

}  // namespace fogzo
