// What stands before the product where x or the codes do not lie as its loads need them: rows that begin at whole 16
// bytes, and groups of k that begin at whole spans, zeros behind them. And the sums of x.
#pragma once
#include "launch.cuh"
#include "probe_matmul_job.h"

namespace fogzo {

constexpr int kPackThreads = 256;

// A row of groups of `width` numbers, `padded` of them behind the packing.
struct PackJob {
    const void* from;  // [rows, groups, width]
    void* to;          // [rows, pitch bytes]
    int64_t rows;
    int64_t groups;
    int64_t width;
    int64_t padded;
    int64_t from_pitch;  // bytes
    int64_t pitch;       // bytes
    int bits;            // of a code
};

// Numbers of one size. Grid: x over 256 numbers of a row each, y over rows, strided.
template <class T> __global__ void __launch_bounds__(kPackThreads) probe_matmul_pack_x_kernel(PackJob job) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
    const int64_t count = job.pitch / static_cast<int64_t>(sizeof(T));
    if (at >= count) {
        return;
    }
    const int64_t group = at / job.padded;
    const int64_t k = at % job.padded;
    const bool inside = group < job.groups && k < job.width;
    for (int64_t row = blockIdx.y; row < job.rows; row += gridDim.y) {
        const T* from = static_cast<const T*>(job.from) + row * job.groups * job.width;
        static_cast<T*>(job.to)[row * count + at] = inside ? from[group * job.width + k] : T(0);
    }
}

// Packed codes, a byte a thread. Grid: x over 256 bytes of a row each, y over rows, strided.
__global__ void __launch_bounds__(kPackThreads) probe_matmul_pack_codes_kernel(PackJob job) {
    const int64_t at = static_cast<int64_t>(blockIdx.x) * kPackThreads + threadIdx.x;
    if (at >= job.pitch) {
        return;
    }
    const int many = 8 / job.bits;
    const uint32_t mask = (1u << job.bits) - 1u;
    for (int64_t row = blockIdx.y; row < job.rows; row += gridDim.y) {
        const uint8_t* from = static_cast<const uint8_t*>(job.from) + row * job.from_pitch;
        uint32_t byte = 0;
        for (int i = 0; i < many; ++i) {
            const int64_t group = (at * many + i) / job.padded;
            const int64_t k = (at * many + i) % job.padded;
            if (group < job.groups && k < job.width) {
                const int64_t bit = (group * job.width + k) * job.bits;
                const uint32_t code = static_cast<uint32_t>(from[bit / 8]) >> (bit % 8) & mask;
                byte |= code << (i * job.bits);
            }
        }
        static_cast<uint8_t*>(job.to)[row * job.pitch + at] = static_cast<uint8_t>(byte);
    }
}

// sums [rows, groups] of int8 x [rows, groups, width]: a warp for each. Grid: x over them.
__global__ void __launch_bounds__(kPackThreads)
    probe_matmul_x_sums_kernel(const int8_t* x, int32_t* sums, int64_t count, int64_t width) {
    constexpr int warps = kPackThreads / 32;
    const int64_t at = static_cast<int64_t>(blockIdx.x) * warps + threadIdx.x / 32;
    if (at >= count) {
        return;
    }
    int32_t sum = 0;
    for (int64_t k = threadIdx.x % 32; k < width; k += 32) {
        sum += x[at * width + k];
    }
    for (int step = 16; step > 0; step /= 2) {
        sum += __shfl_xor_sync(0xFFFFFFFFu, sum, step);
    }
    if (threadIdx.x % 32 == 0) {
        sums[at] = sum;
    }
}

}  // namespace fogzo
