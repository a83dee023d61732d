// The emulated instructions of csrc/cuda/wgmma.cuh against tables of the PTX ISA, written out here element by element
// and apart from the emulation; and the mistakes that they are there to find: a product that nobody waits for,
// registers without a fence, memory that was not published or is written under a product, another swizzle. Prints what
// failed; exits 1 then.
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

#include "checks.h"
#include "launch.cuh"
#include "wgmma.cuh"

using namespace fogzo;

namespace {

enum Mistake {
    kNone,
    kNoFence,
    kNoPublish,
    kNoBarrier,
    kNoCommit,
    kNoWait,
    kReadEarly,
    kWriteA,
    kWriteSharedEarly,
    kNoSwizzle,
    kTwoMatrices,
    kOddStart
};

// d [128, 64] = a [128, 4] times two products' rows in b [128 rows of 128 bytes], which the block copies; the second
// product takes bytes 32 .. 63 of the rows.
template <class T, int mistake> __global__ void product_kernel(const uint32_t* a, const unsigned char* b, T* d) {
    unsigned char* room = dynamic_shared<unsigned char>();
    room += (kSwizzleAtom - shared_address(room) % kSwizzleAtom) % kSwizzleAtom;
    room += mistake == kOddStart ? 128 : 0;
    const int t = static_cast<int>(threadIdx.x);
    for (int i = t; i < 128 * 8; i += 128) {
        const int chunk = mistake == kNoSwizzle ? i % 8 : swizzled(i / 8, i % 8);
        copy_async(room + i / 8 * 128 + chunk * 16, b + i * 16, 16);
    }
    commit_copies();
    wait_copies<0>();
    if (mistake != kNoPublish) {
        publish_to_wgmma();
    }
    if (mistake != kNoBarrier) {
        __syncthreads();
    }
    uint32_t of_a[4] = {a[4 * t], a[4 * t + 1], a[4 * t + 2], a[4 * t + 3]};
    T sums[64];
    if (mistake != kNoFence) {
        fence_wgmma();
    }
    uint64_t rows = describe_rows(room);
    rows += mistake == kTwoMatrices && t == 33 ? 2 : 0;
    multiply_warpgroup(sums, of_a, rows, false);
    multiply_warpgroup(sums, of_a, rows + 2, true);
    if (mistake != kNoCommit) {
        commit_wgmma();
    }
    if (mistake == kWriteA) {
        of_a[2] ^= 1;
    }
    if (mistake == kWriteSharedEarly && t == 5) {
        copy_async(room, b + 16, 16);
    }
    if (mistake == kReadEarly) {
        memcpy(d + 64 * t, sums, sizeof sums);
    }
    wait_wgmma<mistake == kNoWait ? 1 : 0>();
    if (mistake != kReadEarly) {
        memcpy(d + 64 * t, sums, sizeof sums);
    }
}

// "Matrix fragments for wgmma.mma_async.m64nNk32": thread and element to row and column of a; .. of the accumulator.
struct Place {
    int row;
    int column;
};
Place a_s8(int thread, int i) {
    const int lane = thread % 32;
    return {thread / 32 * 16 + lane / 4 + (i / 4 % 2 == 1 ? 8 : 0), lane % 4 * 4 + i % 4 + (i >= 8 ? 16 : 0)};
}
Place a_bf16(int thread, int i) {
    const int lane = thread % 32;
    return {thread / 32 * 16 + lane / 4 + (i / 2 % 2 == 1 ? 8 : 0), lane % 4 * 2 + i % 2 + (i >= 4 ? 8 : 0)};
}
Place d_of(int thread, int i) {
    const int lane = thread % 32;
    return {thread / 32 * 16 + lane / 4 + (i % 4 >= 2 ? 8 : 0), i / 4 * 8 + lane % 4 * 2 + i % 2};
}

uint32_t bf16_of(int x) { return as_bits(static_cast<float>(x)) >> 16; }

// Whether the kernel gives a [64, k] @ (b [128, 0 .. k - 1] + b [128, k .. 2 k - 1]).T; size: bytes of a number.
template <class T, int mistake> bool multiplies(int size, int most, Place (*a_at)(int, int), uint32_t (*bits_of)(int)) {
    const int k = 32 / size;
    const std::vector<int> a = numbers(64 * k, most, 1), b = numbers(128 * 4 * k, most, 2);
    std::vector<uint32_t> a_words(128 * 4, 0);
    for (int thread = 0; thread < 128; ++thread) {
        for (int i = 0; i < 16 / size; ++i) {
            const Place at = a_at(thread, i);
            a_words[static_cast<size_t>(4 * thread + i * size / 4)] |=
                bits_of(a[static_cast<size_t>(at.row * k + at.column)]) << (8 * size * (i % (4 / size)));
        }
    }
    alignas(16) static unsigned char rows[128 * 128];
    for (int i = 0; i < 128 * 4 * k; ++i) {
        const uint32_t bits = bits_of(b[static_cast<size_t>(i)]);
        std::memcpy(rows + i * size, &bits, static_cast<size_t>(size));
    }
    std::vector<T> d(128 * 64, T(7));
    if (launch<product_kernel<T, mistake>>(1, 128, 128 * 128 + 2048, nullptr,
                                           static_cast<const uint32_t*>(a_words.data()),
                                           static_cast<const unsigned char*>(rows), d.data()) != FOGZO_OK) {
        return false;
    }
    for (int thread = 0; thread < 128; ++thread) {
        for (int i = 0; i < 64; ++i) {
            const Place at = d_of(thread, i);
            int sum = 0;
            for (int j = 0; j < 2 * k; ++j) {
                sum += a[static_cast<size_t>(at.row * k + j % k)] * b[static_cast<size_t>(at.column * 4 * k + j)];
            }
            if (d[static_cast<size_t>(64 * thread + i)] != static_cast<T>(sum)) {
                return false;
            }
        }
    }
    return true;
}

bool says(const char* part) { return std::string(cuda_on_host::last_failure()).find(part) != std::string::npos; }

template <int mistake> bool s8() { return multiplies<int32_t, mistake>(1, 127, a_s8, byte_of); }
template <int mistake> bool bf16() { return multiplies<float, mistake>(2, 31, a_bf16, bf16_of); }

}  // namespace

int main() {
    for (const int order : {cuda_on_host::kForward, cuda_on_host::kReverse, cuda_on_host::kShuffled}) {
        cuda_on_host::set_order(order);
        check(s8<kNone>(), "m64n128k32");
        check(bf16<kNone>(), "m64n128k16");
        check(!s8<kNoFence>() && says("behind the last fence_wgmma"), "registers without a fence");
        check(!s8<kNoPublish>() && says("publish_to_wgmma"), "memory that was not published");
        // Shuffled, all may have copied by the time that the first warp is complete.
        check(order == cuda_on_host::kShuffled || !s8<kNoBarrier>(), "memory that others have not copied yet");
        check(!s8<kNoCommit>(), "products that were not committed");
        check(!s8<kNoWait>(), "products that nobody waits for");
        check(!s8<kReadEarly>(), "sums that are read early");
        check(!s8<kWriteA>() && says("wrote registers"), "registers that are written under a product");
        check(!s8<kWriteSharedEarly>() && says("shared memory was written"), "memory that is written under a product");
        check(!s8<kNoSwizzle>(), "rows as they lie");
        check(!s8<kTwoMatrices>() && says("another matrix"), "two matrices in a warp");
        check(!s8<kOddStart>(), "rows that do not begin at a whole atom");
    }
    cuda_on_host::forget_failure();
    if (failures == 0) {
        std::printf("wgmma: all passed\n");
    }
    return failures == 0 ? 0 : 1;
}
