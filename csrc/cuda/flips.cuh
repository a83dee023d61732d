// Stream compaction of the codes that differ: count by chunk, add up, write each chunk from its own place on, so that
// equal calls give equal bits.
#pragma once
#include "four.cuh"

namespace fogzo {

constexpr int kFlipThreads = 256;
constexpr int kFlipCodes = 16;                             // of a thread
constexpr int64_t kFlipChunk = kFlipThreads * kFlipCodes;  // of a block

struct FlipJob {
    const uint8_t* base;   // [elements]
    const uint8_t* codes;  // [sides, elements]
    int64_t* index;        // [sides, capacity]
    uint8_t* code;         // [sides, capacity]
    int64_t* count;        // [sides]
    int64_t* counts;       // [sides, chunks], then the sums before each
    int64_t sides;
    int64_t elements;
    int64_t chunks;
    int64_t capacity;
    bool vector;
};

// Which of 16 codes from k on differ, a bit each.
__device__ __forceinline__ uint32_t differing(const uint8_t* base, const uint8_t* codes, int64_t k, int64_t elements,
                                              bool vector) {
    uint32_t bits = 0;
    if (vector && k + kFlipCodes <= elements) {
        const uint4 a = *reinterpret_cast<const uint4*>(base + k);
        const uint4 b = *reinterpret_cast<const uint4*>(codes + k);
        const uint32_t words[4] = {a.x ^ b.x, a.y ^ b.y, a.z ^ b.z, a.w ^ b.w};
#pragma unroll
        for (int i = 0; i < kFlipCodes; ++i) {
            if ((words[i / 4] >> (8 * (i % 4)) & 0xFFu) != 0u) {
                bits |= 1u << i;
            }
        }
        return bits;
    }
    for (int i = 0; i < kFlipCodes; ++i) {
        if (k + i < elements && base[k + i] != codes[k + i]) {
            bits |= 1u << i;
        }
    }
    return bits;
}

__global__ void __launch_bounds__(kFlipThreads) count_flips_kernel(FlipJob job) {
    for (int64_t part = blockIdx.x; part < job.sides * job.chunks; part += gridDim.x) {
        const int64_t side = part / job.chunks;
        const int64_t k = (part - side * job.chunks) * kFlipChunk + threadIdx.x * kFlipCodes;
        const uint32_t bits = differing(job.base, job.codes + side * job.elements, k, job.elements, job.vector);
        const int sum = block_sum<kFlipThreads>(__popc(bits));
        if (threadIdx.x == 0) {
            job.counts[part] = sum;
        }
    }
}

// The sum of the values of the threads before this one; total: of all threads. Every thread must come.
template <class T> __device__ __forceinline__ T sum_before(T value, T& total) {
    __shared__ T of_warp[kFlipThreads / 32];
    T up_to = value;
    for (unsigned by = 1; by < 32; by *= 2) {
        const T other = __shfl_up_sync(kAllLanes, up_to, by);
        if (threadIdx.x % 32 >= by) {
            up_to += other;
        }
    }
    __syncthreads();  // what an earlier call left has been read
    if (threadIdx.x % 32 == 31) {
        of_warp[threadIdx.x / 32] = up_to;
    }
    __syncthreads();
    T before = up_to - value;
    total = 0;
    for (unsigned warp = 0; warp < kFlipThreads / 32; ++warp) {
        before += warp < threadIdx.x / 32 ? of_warp[warp] : 0;
        total += of_warp[warp];
    }
    return before;
}

// counts -> the sums before each, and count [sides]; a block a side.
__global__ void __launch_bounds__(kFlipThreads) sum_flips_kernel(FlipJob job) {
    for (int64_t side = blockIdx.x; side < job.sides; side += gridDim.x) {
        int64_t* counts = job.counts + side * job.chunks;
        int64_t so_far = 0;
        for (int64_t begin = 0; begin < job.chunks; begin += kFlipThreads) {
            const int64_t chunk = begin + threadIdx.x;
            int64_t total;
            const int64_t before = sum_before<int64_t>(chunk < job.chunks ? counts[chunk] : 0, total);
            if (chunk < job.chunks) {
                counts[chunk] = so_far + before;
            }
            so_far += total;
        }
        if (threadIdx.x == 0) {
            job.count[side] = so_far;
        }
    }
}

__global__ void __launch_bounds__(kFlipThreads) find_flips_kernel(FlipJob job) {
    for (int64_t part = blockIdx.x; part < job.sides * job.chunks; part += gridDim.x) {
        const int64_t side = part / job.chunks;
        const uint8_t* codes = job.codes + side * job.elements;
        const int64_t k = (part - side * job.chunks) * kFlipChunk + threadIdx.x * kFlipCodes;
        uint32_t bits = differing(job.base, codes, k, job.elements, job.vector);
        int total;
        int64_t at = job.counts[part] + sum_before<int>(__popc(bits), total);
        for (; bits != 0 && at < job.capacity; bits &= bits - 1, ++at) {
            const int64_t number = k + __ffs(static_cast<int>(bits)) - 1;
            job.index[side * job.capacity + at] = number;
            job.code[side * job.capacity + at] = codes[number];
        }
        // behind the last flip: -1 and 0, each chunk a share of the room
        const int64_t stride = job.chunks * kFlipThreads;
        const int64_t first = (part - side * job.chunks) * kFlipThreads + threadIdx.x;
        for (int64_t place = first; place < job.capacity; place += stride) {
            if (place >= job.count[side]) {
                job.index[side * job.capacity + place] = -1;
                job.code[side * job.capacity + place] = 0;
            }
        }
    }
}

}  // namespace fogzo
