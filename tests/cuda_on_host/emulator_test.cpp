// The emulator's own tests: right kernels give the right answer in every order of threads, and the mistakes that it
// is there to find are found. Prints what failed; exits 1 then.
#include <cstdint>
#include <cstdio>
#include <string>
#include <vector>

#include "checks.h"
#include "launch.cuh"

using namespace fogzo;

namespace {

constexpr int kThreads = 96;

// out [96]: the element of the mirrored thread, through shared memory.
template <bool with_barrier> __global__ void mirror_kernel(const int* in, int* out) {
    __shared__ int room[kThreads];
    room[threadIdx.x] = -1;
    __syncthreads();
    room[threadIdx.x] = in[blockIdx.x * blockDim.x + threadIdx.x];
    if (with_barrier) {
        __syncthreads();
    }
    out[blockIdx.x * blockDim.x + threadIdx.x] = room[blockDim.x - 1 - threadIdx.x];
}

// out [1]: sum of in [96], by shuffles, warps and dynamic shared memory; `wrong` is added to the shuffle's lane.
template <int wrong> __global__ void sum_kernel(const int* in, int* out) {
    int* sums = dynamic_shared<int>();
    int sum = in[threadIdx.x];
    for (int by = 16; by > 0; by /= 2) {
        sum += __shfl_down_sync(0xFFFFFFFFu, sum, static_cast<unsigned>(by + wrong));
    }
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = sum;
    }
    __syncthreads();
    if (threadIdx.x == 0) {
        *out = sums[0] + sums[1] + sums[2];
    }
}

__global__ void half_waits_kernel() {
    if (threadIdx.x < 40) {
        __syncthreads();
    }
}

__global__ void two_barriers_kernel() {
    if (threadIdx.x < 64) {
        __syncthreads();
    } else {
        __syncthreads();
    }
}

__global__ void lane_missing_kernel(int* out) {
    if (threadIdx.x % 32 != 7) {
        out[threadIdx.x] = __shfl_sync(0xFFFFFFFFu, 1, 0);
    } else {
        __syncthreads();
    }
}

// out [4, 96]: warp functions, each lane its own answer.
__global__ void warp_kernel(unsigned* out) {
    const unsigned lane = threadIdx.x % 32;
    const unsigned half = lane < 16 ? 0x0000FFFFu : 0xFFFF0000u;
    out[threadIdx.x] = __ballot_sync(half, lane % 3 == 0);
    out[kThreads + threadIdx.x] = __shfl_xor_sync(0xFFFFFFFFu, lane, 5);
    out[2 * kThreads + threadIdx.x] = __shfl_up_sync(0xFFFFFFFFu, lane, 3, 8);
    out[3 * kThreads + threadIdx.x] =
        static_cast<unsigned>(__any_sync(0xFFFFFFFFu, lane == 9) + 2 * __all_sync(0xFFFFFFFFu, lane < 31));
}

__global__ void count_kernel(unsigned long long* total) { atomicAdd(total, 1ULL); }

std::vector<int> numbers() {
    std::vector<int> in(2 * kThreads);
    for (size_t i = 0; i < in.size(); ++i) {
        in[i] = static_cast<int>(i * i % 101) + 1;
    }
    return in;
}

template <bool with_barrier> bool mirrors() {
    const std::vector<int> in = numbers();
    std::vector<int> out(in.size());
    launch<mirror_kernel<with_barrier>>(2, kThreads, 0, nullptr, in.data(), out.data());
    for (size_t i = 0; i < out.size(); ++i) {
        const size_t block = i / kThreads * kThreads;
        if (out[i] != in[block + kThreads - 1 - i % kThreads]) {
            return false;
        }
    }
    return true;
}

template <int wrong> bool sums() {
    const std::vector<int> in = numbers();
    int want = 0;
    for (int i = 0; i < kThreads; ++i) {
        want += in[static_cast<size_t>(i)];
    }
    int got = 0;
    launch<sum_kernel<wrong>>(1, kThreads, 3 * sizeof(int), nullptr, in.data(), &got);
    return got == want;
}

void warp_functions() {
    std::vector<unsigned> out(4 * kThreads);
    check(launch<warp_kernel>(1, kThreads, 0, nullptr, out.data()) == FOGZO_OK, "the warp kernel runs");
    for (unsigned t = 0; t < kThreads; ++t) {
        const unsigned lane = t % 32;
        const unsigned votes = lane < 16 ? 0x9249u : 0x49240000u;  // lanes 0, 3, .. 15 and 18, 21, .. 30
        check(out[t] == votes, "ballot of half a warp");
        check(out[kThreads + t] == (lane ^ 5), "shuffle xor");
        check(out[2 * kThreads + t] == (lane % 8 < 3 ? lane : lane - 3), "shuffle up in segments of 8");
        check(out[3 * kThreads + t] == 1, "any and all");
    }
}

bool says(const char* part) { return std::string(cuda_on_host::last_failure()).find(part) != std::string::npos; }

void diverged_threads() {
    int out[kThreads] = {};
    check(launch<half_waits_kernel>(1, kThreads, 0, nullptr) == FOGZO_DEVICE_ERROR, "half of a block at a barrier");
    check(says("half_waits_kernel: thread 0 waits at") && says("thread 40 has ended"), "the message names the threads");
    check(cudaGetLastError() != cudaSuccess && cudaGetLastError() == cudaSuccess, "the error is read once");
    check(launch<two_barriers_kernel>(1, kThreads, 0, nullptr) == FOGZO_DEVICE_ERROR, "two barriers in one block");
    check(launch<lane_missing_kernel>(1, kThreads, 0, nullptr, out) == FOGZO_DEVICE_ERROR, "a lane that never arrives");
    check(says("for lanes that never arrive"), "the message says what for");
    check(launch<count_kernel>(1, 2048, 0, nullptr, nullptr) == FOGZO_DEVICE_ERROR, "a block of 2048 threads");
    cuda_on_host::forget_failure();
}

}  // namespace

int main() {
    for (const int order : {cuda_on_host::kForward, cuda_on_host::kReverse, cuda_on_host::kShuffled}) {
        cuda_on_host::set_order(order);
        check(mirrors<true>(), "a kernel with its barrier");
        check(!mirrors<false>(), "a kernel without its __syncthreads must fail");
        check(sums<0>(), "a sum by shuffles");
        check(!sums<1>(), "a kernel with a wrong shuffle lane must fail");
        warp_functions();
        diverged_threads();
    }
    unsigned long long total = 0;
    launch<count_kernel>(dim3(3, 2, 2), dim3(8, 4, 2), 0, nullptr, &total);
    check(total == 12 * 64, "every thread of a grid in three dimensions runs once");
    std::printf("emulator: %d failures\n", failures);
    return failures == 0 ? 0 : 1;
}
