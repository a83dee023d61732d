// Four neighbouring elements a thread: 16-byte loads and stores where addresses allow, scales, sums in a fixed order.
#pragma once
#include <cuda_runtime.h>

#include "fogzo/estimator.h"
#include "fogzo/grid.h"
#include "fogzo/shape.h"

namespace fogzo {

constexpr int kThreads = 128;  // of a block
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

struct alignas(16) Four {
    float of[4];
};

struct FourCodes {
    int of[4];
};

// Elements k .. k + n - 1, n at most 4; zero behind them. vector: from + k is 16-byte aligned.
__device__ __forceinline__ Four load_four(const float* from, int64_t k, int n, bool vector) {
    Four four = {};
    if (vector && n == 4) {
        const float4 v = *reinterpret_cast<const float4*>(from + k);
        four = {{v.x, v.y, v.z, v.w}};
    } else {
        for (int c = 0; c < 4; ++c) {
            if (c < n) {
                four.of[c] = from[k + c];
            }
        }
    }
    return four;
}

__device__ __forceinline__ void store_four(float* to, int64_t k, int n, bool vector, const Four& four) {
    if (vector && n == 4) {
        *reinterpret_cast<float4*>(to + k) = make_float4(four.of[0], four.of[1], four.of[2], four.of[3]);
    } else {
        for (int c = 0; c < 4; ++c) {
            if (c < n) {
                to[k + c] = four.of[c];
            }
        }
    }
}

// Bytes: vector where to + k is 4-byte aligned.
__device__ __forceinline__ void store_codes(uint8_t* to, int64_t k, int n, bool vector, const FourCodes& codes) {
    if (vector && n == 4) {
        *reinterpret_cast<uint32_t*>(to + k) =
            static_cast<uint32_t>(codes.of[0]) | static_cast<uint32_t>(codes.of[1]) << 8 |
            static_cast<uint32_t>(codes.of[2]) << 16 | static_cast<uint32_t>(codes.of[3]) << 24;
    } else {
        for (int c = 0; c < 4; ++c) {
            if (c < n) {
                to[k + c] = static_cast<uint8_t>(codes.of[c]);
            }
        }
    }
}

__device__ __forceinline__ FourCodes load_codes(const uint8_t* from, int64_t k, int n, bool vector) {
    FourCodes codes = {};
    if (vector && n == 4) {
        const uint32_t word = *reinterpret_cast<const uint32_t*>(from + k);
        for (int c = 0; c < 4; ++c) {
            codes.of[c] = static_cast<int>(word >> (8 * c) & 0xFFu);
        }
    } else {
        for (int c = 0; c < 4; ++c) {
            if (c < n) {
                codes.of[c] = from[k + c];
            }
        }
    }
    return codes;
}

// Every `group` neighbouring elements share a scale; group 0: all do.
struct Scales {
    const float* scale;
    int64_t group;

    // The scales of elements first + 0 .. 3 of an array, none behind first + n.
    __device__ __forceinline__ Four at(int64_t first, int n) const {
        if (group == 0) {
            const float a = scale[0];
            return {{a, a, a, a}};
        }
        int64_t index = divided(first, group);
        int64_t left = group - (first - index * group);
        Four four = {{scale[index], 1.0f, 1.0f, 1.0f}};
        for (int c = 1; c < 4; ++c) {
            if (--left == 0) {
                ++index;
                left = group;
            }
            if (c < n) {
                four.of[c] = left == group ? scale[index] : four.of[c - 1];
            }
        }
        return four;
    }

    // 64-bit division takes a hundred instructions, most numbers have 32 bits.
    __device__ __forceinline__ static int64_t divided(int64_t number, int64_t by) {
        if (((number | by) >> 32) == 0) {
            return static_cast<uint32_t>(number) / static_cast<uint32_t>(by);
        }
        return number / by;
    }
};

__device__ __forceinline__ Four inverses(const Four& a) {
    return {{1.0f / a.of[0], 1.0f / a.of[1], 1.0f / a.of[2], 1.0f / a.of[3]}};
}

// The same sum in every lane of a warp.
template <class T> __device__ __forceinline__ T warp_sum(T sum) {
    for (int with = 16; with > 0; with /= 2) {
        sum += __shfl_xor_sync(kAllLanes, sum, with);
    }
    return sum;
}

// The sum over a block of `threads`, in thread 0; every thread must come.
template <int threads, class T> __device__ __forceinline__ T block_sum(T sum) {
    __shared__ T of_warp[threads / 32];
    sum = warp_sum(sum);
    __syncthreads();  // what an earlier call left has been read
    if (threadIdx.x % 32 == 0) {
        of_warp[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        for (int warp = 1; warp < threads / 32; ++warp) {
            sum += of_warp[warp];
        }
    }
    return sum;
}

// ---- for launchers

constexpr int64_t kMostBlocks = int64_t(1) << 20;  // kernels stride over the rest

inline unsigned blocks_for(int64_t work, int64_t per_block) {
    const int64_t blocks = (work + per_block - 1) / per_block;
    return static_cast<unsigned>(blocks < kMostBlocks ? blocks : kMostBlocks);
}

inline bool aligned(const void* pointer, uintptr_t bytes) { return reinterpret_cast<uintptr_t>(pointer) % bytes == 0; }

// Scales that a launcher has checked; group is 0 for one scale.
inline Scales scales_of(const float* scale, int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols) {
    return {scale, scale_rows * scale_cols == 1 ? 0 : rows * cols / (scale_rows * scale_cols)};
}

// As check_shape, and a scale for neighbouring elements: one in all, or as many rows of them as the view has.
inline int check_scales(int64_t rows, int64_t cols, const float* scale, int64_t scale_rows, int64_t scale_cols,
                        int64_t copies) {
    const int status = check_shape(rows, cols, scale, scale_rows, scale_cols, copies);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    return scale_rows == rows || scale_cols == 1 ? FOGZO_OK : FOGZO_BAD_SCALE_SHAPE;
}

// Of a weight with scales and a grid, without probes.
inline int check_quantized(int64_t rows, int64_t cols, const float* scale, int64_t scale_rows, int64_t scale_cols,
                           int kind, int bits) {
    const int status = check_scales(rows, cols, scale, scale_rows, scale_cols, 1);
    return status != FOGZO_OK || grid_exists(kind, bits) ? status : FOGZO_BAD_GRID;
}

}  // namespace fogzo
