// The emulated instructions of csrc/cuda/ptx.cuh against tables of the PTX ISA, written out here element by element
// and apart from the emulation; and the mistakes that they are there to find: a wrong fragment index, a copy that
// nobody waits for. Prints what failed; exits 1 then.
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstring>
#include <vector>

#include "checks.h"
#include "launch.cuh"
#include "ptx.cuh"

using namespace fogzo;

namespace {

// Element i of lane's fragment lies at this row and column of its matrix; "Matrix fragments for mma.m16n8k32 with
// integer types" and "... mma.m16n8k16 with floating point types": g = lane >> 2, t = lane % 4.
struct Place {
    int row;
    int column;
};
Place a_s8(int lane, int i) {
    const int g = lane >> 2;
    const int t = lane % 4;
    return {(i >= 0 && i < 4) || (i >= 8 && i < 12) ? g : g + 8, t * 4 + (i & 3) + (i >= 8 ? 16 : 0)};
}
Place b_s8(int lane, int i) { return {(lane % 4) * 4 + (i & 3) + (i >= 4 ? 16 : 0), lane >> 2}; }
Place a_bf16(int lane, int i) {
    const int g = lane >> 2;
    const int t = lane % 4;
    return {(i >= 0 && i < 2) || (i >= 4 && i < 6) ? g : g + 8, t * 2 + (i & 1) + (i >= 4 ? 8 : 0)};
}
Place b_bf16(int lane, int i) { return {(lane % 4) * 2 + (i & 1) + (i >= 2 ? 8 : 0), lane >> 2}; }
Place c_of(int lane, int i) { return {(lane >> 2) + (i < 2 ? 0 : 8), (lane % 4) * 2 + (i & 1)}; }

// wrong: the registers of a in another order, as a kernel with a wrong fragment index has them.
template <bool wrong> __global__ void s8_kernel(const uint32_t* a, const uint32_t* b, int32_t* d) {
    const int lane = static_cast<int>(threadIdx.x);
    const uint32_t of_a[4] = {a[4 * lane], a[4 * lane + (wrong ? 2 : 1)], a[4 * lane + (wrong ? 1 : 2)],
                              a[4 * lane + 3]};
    int32_t of_d[4] = {d[4 * lane], d[4 * lane + 1], d[4 * lane + 2], d[4 * lane + 3]};
    multiply_s8(of_d, of_a, b[2 * lane], b[2 * lane + 1]);
    memcpy(d + 4 * lane, of_d, sizeof of_d);
}

template <bool wrong> __global__ void bf16_kernel(const uint32_t* a, const uint32_t* b, float* d) {
    const int lane = static_cast<int>(threadIdx.x);
    const uint32_t of_a[4] = {a[4 * lane], a[4 * lane + 1], a[4 * lane + 2], a[4 * lane + 3]};
    float of_d[4] = {d[4 * lane], d[4 * lane + 1], d[4 * lane + 2], d[4 * lane + 3]};
    multiply_bf16(of_d, of_a, b[2 * lane + (wrong ? 1 : 0)], b[2 * lane + (wrong ? 0 : 1)]);
    memcpy(d + 4 * lane, of_d, sizeof of_d);
}

// Warp 1 multiplies, and warp 0 ends before: lanes of one warp alone meet.
__global__ void half_a_warp_kernel(int32_t* d) {
    const uint32_t a[4] = {};
    int32_t of_d[4] = {};
    if (threadIdx.x < 16) {
        multiply_s8(of_d, a, 0, 0);
    } else {
        __syncthreads();
    }
    d[threadIdx.x] = of_d[0];
}

template <class T, class Kernel, class Get>
std::vector<int> product(Kernel run, int k, const std::vector<int>& a, const std::vector<int>& b, int many_a,
                         Place (*a_at)(int, int), Place (*b_at)(int, int), Get bits_of) {
    const int each = many_a / 4;  // numbers in a word
    std::vector<uint32_t> a_words(4 * 32, 0), b_words(2 * 32, 0);
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < many_a; ++i) {
            const Place at = a_at(lane, i);
            a_words[static_cast<size_t>(4 * lane + i / each)] |= bits_of(a[static_cast<size_t>(at.row * k + at.column)])
                                                                 << (32 / each * (i % each));
        }
        for (int i = 0; i < many_a / 2; ++i) {
            const Place at = b_at(lane, i);
            b_words[static_cast<size_t>(2 * lane + i / each)] |= bits_of(b[static_cast<size_t>(at.row * 8 + at.column)])
                                                                 << (32 / each * (i % each));
        }
    }
    std::vector<T> d(4 * 32, T(3));
    check(run(a_words.data(), b_words.data(), d.data()) == FOGZO_OK, "the launch");
    std::vector<int> result(16 * 8, -1);
    for (int lane = 0; lane < 32; ++lane) {
        for (int i = 0; i < 4; ++i) {
            const Place at = c_of(lane, i);
            result[static_cast<size_t>(at.row * 8 + at.column)] =
                static_cast<int>(d[static_cast<size_t>(4 * lane + i)]);
        }
    }
    return result;
}

std::vector<int> wanted(int k, const std::vector<int>& a, const std::vector<int>& b) {
    std::vector<int> d(16 * 8, 3);
    for (int row = 0; row < 16; ++row) {
        for (int column = 0; column < 8; ++column) {
            for (int i = 0; i < k; ++i) {
                d[static_cast<size_t>(row * 8 + column)] +=
                    a[static_cast<size_t>(row * k + i)] * b[static_cast<size_t>(i * 8 + column)];
            }
        }
    }
    return d;
}

uint32_t bf16_of(int x) {
    const float value = static_cast<float>(x);
    return as_bits(value) >> 16;
}

void products() {
    const std::vector<int> a = numbers(16 * 32, 127, 1), b = numbers(32 * 8, 127, 2);
    const auto s8 = [](auto kernel) {
        return [kernel](uint32_t* x, uint32_t* w, int32_t* d) { return kernel(x, w, d); };
    };
    const auto right = s8([](auto x, auto w, auto d) {
        return launch<s8_kernel<false>>(1, 32, 0, nullptr, static_cast<const uint32_t*>(x),
                                        static_cast<const uint32_t*>(w), d);
    });
    const auto wrong = s8([](auto x, auto w, auto d) {
        return launch<s8_kernel<true>>(1, 32, 0, nullptr, static_cast<const uint32_t*>(x),
                                       static_cast<const uint32_t*>(w), d);
    });
    check(product<int32_t>(right, 32, a, b, 16, a_s8, b_s8, byte_of) == wanted(32, a, b), "m16n8k32");
    check(product<int32_t>(wrong, 32, a, b, 16, a_s8, b_s8, byte_of) != wanted(32, a, b),
          "m16n8k32 with two registers exchanged must be wrong");

    const std::vector<int> c = numbers(16 * 16, 63, 3), e = numbers(16 * 8, 63, 4);
    const auto halves = [](uint32_t* x, uint32_t* w, float* d) {
        return launch<bf16_kernel<false>>(1, 32, 0, nullptr, static_cast<const uint32_t*>(x),
                                          static_cast<const uint32_t*>(w), d);
    };
    const auto exchanged = [](uint32_t* x, uint32_t* w, float* d) {
        return launch<bf16_kernel<true>>(1, 32, 0, nullptr, static_cast<const uint32_t*>(x),
                                         static_cast<const uint32_t*>(w), d);
    };
    check(product<float>(halves, 16, c, e, 8, a_bf16, b_bf16, bf16_of) == wanted(16, c, e), "m16n8k16");
    check(product<float>(exchanged, 16, c, e, 8, a_bf16, b_bf16, bf16_of) != wanted(16, c, e),
          "m16n8k16 with two registers exchanged must be wrong");

    std::vector<int32_t> d(32, 0);
    check(launch<half_a_warp_kernel>(1, 32, 0, nullptr, d.data()) != FOGZO_OK, "half a warp cannot multiply");
}

// Single elements, from the figures of the PTX ISA: row and column of a, and the lane, register and byte they are in.
void single_elements() {
    struct Entry {
        int row, column, lane, word, byte;
    };
    constexpr Entry entries[] = {{0, 0, 0, 0, 0},  {0, 5, 1, 0, 1},   {7, 15, 31, 0, 3}, {8, 0, 0, 1, 0},
                                 {9, 6, 5, 1, 2},  {0, 16, 0, 2, 0},  {3, 30, 15, 2, 2}, {15, 31, 31, 3, 3},
                                 {8, 19, 0, 3, 3}, {12, 17, 16, 3, 1}};
    for (const Entry& entry : entries) {
        std::vector<uint32_t> a(128, 0), b(64, 0);
        std::vector<int32_t> d(128, 0);
        a[static_cast<size_t>(4 * entry.lane + entry.word)] = 1u << (8 * entry.byte);
        // b [k][n] = k in column 5 alone: lanes 20 .. 23.
        for (int k = 0; k < 32; ++k) {
            b[static_cast<size_t>(2 * (20 + k % 16 / 4) + k / 16)] |= static_cast<uint32_t>(k) << (8 * (k % 4));
        }
        launch<s8_kernel<false>>(1, 32, 0, nullptr, static_cast<const uint32_t*>(a.data()),
                                 static_cast<const uint32_t*>(b.data()), d.data());
        // d [row][5]: lane 4 (row % 8) + 2, register 1 of the rows' half.
        const size_t at = static_cast<size_t>(4 * (entry.row % 8 * 4 + 2) + entry.row / 8 * 2 + 1);
        int64_t sum = 0;
        for (const int32_t one : d) {
            sum += one;
        }
        check(d[at] == entry.column && sum == entry.column, "a single element of a");
    }
}

// out [64]: what thread t copied for thread 63 - t; left: groups that it does not wait for.
template <int left, bool barrier> __global__ void copy_kernel(const uint32_t* from, uint32_t* out, int bytes) {
    uint32_t* room = dynamic_shared<uint32_t>();
    const int t = static_cast<int>(threadIdx.x);
    copy_async(room + 4 * t, from + 4 * t, bytes);
    commit_copies();
    wait_copies<left>();
    if (barrier) {
        __syncthreads();
    }
    out[t] = room[4 * (63 - t) + 3];
}

template <int left, bool barrier> bool copies(int bytes) {
    alignas(16) static uint32_t from[256];
    std::vector<uint32_t> out(64);
    for (uint32_t i = 0; i < 256; ++i) {
        from[i] = i + 1;
    }
    const bool ran = launch<copy_kernel<left, barrier>>(1, 64, 1024, nullptr, static_cast<const uint32_t*>(from),
                                                        out.data(), bytes) == FOGZO_OK;
    for (uint32_t t = 0; t < 64; ++t) {
        if (!ran || out[t] != (bytes == 16 ? from[4 * (63 - t) + 3] : 0u)) {
            return false;
        }
    }
    return true;
}

void bytes_and_halves() {
    check(permute_bytes(0x33221100u, 0x77665544u, 0x6420) == 0x66442200u, "prmt");
    check(permute_bytes(0x80808080u, 0x7F, 0xC8) == 0x808000FFu, "prmt of signs");
    // 1.5 * 2 - 3 = 0; 16 * 8 + 0.5 = 128.5, half way between 128 and 129: to the even one.
    check(fma_bf16x2(0x41803FC0u, 0x41004000u, 0x3F00C040u) == 0x43000000u, "fma.rn.bf16x2");
}

}  // namespace

int main() {
    products();
    single_elements();
    check(copies<0, true>(16), "cp.async");
    check(copies<0, true>(0), "cp.async of no bytes: zeros");
    check(!copies<1, true>(16), "cp.async that is not waited for must not arrive");
    check(!copies<0, false>(16), "cp.async without a barrier must not reach other threads");
    bytes_and_halves();
    if (failures == 0) {
        std::printf("ptx: all passed\n");
    }
    return failures == 0 ? 0 : 1;
}
