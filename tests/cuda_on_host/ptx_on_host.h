// The instructions of csrc/cuda/ptx.cuh on the host, from the tables of the PTX ISA (section "Matrix multiply-
// accumulate operation using mma instruction", fragments for .m16n8k32 and .m16n8k16).
#pragma once
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <unordered_map>
#include <vector>

#include "emulator.h"

namespace fogzo {
namespace on_host {

struct Copy {
    void* to;
    const void* from;
    int bytes;
};

// A thread's copies under way: groups, the last of which is open.
struct Copies {
    uint64_t block = 0;
    std::vector<std::vector<Copy>> groups;
};

inline unsigned thread_number() {
    const cuda_on_host::Index3& at = cuda_on_host::thread_index;
    const cuda_on_host::Index3& size = cuda_on_host::block_size;
    return at.x + size.x * (at.y + size.y * at.z);
}

// Of this block, the 16 bytes of shared memory that copies have reached and asynchronous products may not read yet, and
// the threads whose copies they were.
inline std::unordered_map<uintptr_t, unsigned>& unpublished() {
    static std::unordered_map<uintptr_t, unsigned> all;
    static uint64_t block = 0;
    if (block != cuda_on_host::block_number()) {
        block = cuda_on_host::block_number();
        all.clear();
    }
    return all;
}

inline Copies& copies() {
    static std::vector<Copies> all(1024);
    Copies& mine = all[thread_number()];
    if (mine.block != cuda_on_host::block_number()) {
        mine.block = cuda_on_host::block_number();
        mine.groups.clear();
    }
    if (mine.groups.empty()) {
        mine.groups.emplace_back();
    }
    return mine;
}

inline float bfloat16(uint32_t word, int half) {
    const uint32_t bits = (half == 0 ? word << 16 : word & 0xFFFF0000u);
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}

inline uint32_t rounded_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    return x != x ? 0x7FFFu : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

// Rounded toward zero: tensor cores keep no better than that of a sum of products.
inline float toward_zero(double x) {
    const float near = static_cast<float>(x);
    return std::fabs(static_cast<double>(near)) > std::fabs(x) ? std::nextafter(near, 0.0f) : near;
}

struct Operands {
    uint32_t a[4];
    uint32_t b[2];
};

inline cuda_on_host::Lanes<Operands> operands(const uint32_t (&a)[4], uint32_t b0, uint32_t b1, int line) {
    return cuda_on_host::gather(0xFFFFFFFFu, Operands{{a[0], a[1], a[2], a[3]}, {b0, b1}}, {"ptx.cuh", line});
}

}  // namespace on_host

// The bytes arrive where their group is waited for; until then there is nothing of use.
inline void copy_async(void* shared, const void* global, int bytes) {
    if (reinterpret_cast<uintptr_t>(shared) % 16 != 0 || reinterpret_cast<uintptr_t>(global) % 16 != 0) {
        std::fprintf(stderr, "cuda_on_host: copy_async of addresses that are not aligned\n");
        std::abort();
    }
    std::memset(shared, cuda_on_host::kPoison, 16);
    on_host::copies().groups.back().push_back({shared, global, bytes});
}

inline void commit_copies() { on_host::copies().groups.emplace_back(); }

template <int left> inline void wait_copies() {
    on_host::Copies& mine = on_host::copies();
    while (static_cast<int>(mine.groups.size()) - 1 > left) {
        for (const on_host::Copy& one : mine.groups.front()) {
            std::memset(one.to, 0, 16);
            std::memcpy(one.to, one.from, static_cast<size_t>(one.bytes));
            on_host::unpublished()[reinterpret_cast<uintptr_t>(one.to)] = on_host::thread_number();
        }
        mine.groups.erase(mine.groups.begin());
    }
}

inline uint32_t permute_bytes(uint32_t a, uint32_t b, uint32_t selector) {
    const uint64_t bytes = static_cast<uint64_t>(b) << 32 | a;
    uint32_t d = 0;
    for (int i = 0; i < 4; ++i) {
        const uint32_t nibble = selector >> (4 * i) & 15u;
        uint32_t byte = static_cast<uint32_t>(bytes >> (8 * (nibble & 7u))) & 0xFFu;
        if ((nibble & 8u) != 0) {
            byte = (byte & 0x80u) != 0 ? 0xFFu : 0u;  // its sign
        }
        d |= byte << (8 * i);
    }
    return d;
}

inline uint32_t fma_bf16x2(uint32_t a, uint32_t b, uint32_t c) {
    uint32_t d = 0;
    for (int half = 0; half < 2; ++half) {
        const float x = std::fma(on_host::bfloat16(a, half), on_host::bfloat16(b, half), on_host::bfloat16(c, half));
        d |= on_host::rounded_bfloat16(x) << (16 * half);
    }
    return d;
}

inline void multiply_s8(int32_t (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const auto lanes = on_host::operands(a, b0, b1, __LINE__);
    const int lane = static_cast<int>(cuda_on_host::lane_number());
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2);
        const int column = lane % 4 * 2 + i % 2;
        uint32_t sum = static_cast<uint32_t>(d[i]);  // wraps around
        for (int k = 0; k < 32; ++k) {
            const int owner = k % 16 / 4;
            const uint32_t x = lanes.of[row % 8 * 4 + owner].a[k / 16 * 2 + row / 8] >> (8 * (k % 4));
            const uint32_t w = lanes.of[column * 4 + owner].b[k / 16] >> (8 * (k % 4));
            sum += static_cast<uint32_t>(static_cast<int8_t>(x & 0xFFu) * static_cast<int8_t>(w & 0xFFu));
        }
        d[i] = static_cast<int32_t>(sum);
    }
}

inline void multiply_bf16(float (&d)[4], const uint32_t (&a)[4], uint32_t b0, uint32_t b1) {
    const auto lanes = on_host::operands(a, b0, b1, __LINE__);
    const int lane = static_cast<int>(cuda_on_host::lane_number());
    for (int i = 0; i < 4; ++i) {
        const int row = lane / 4 + 8 * (i / 2);
        const int column = lane % 4 * 2 + i % 2;
        double sum = d[i];
        for (int k = 0; k < 16; ++k) {
            const int owner = k % 8 / 2;
            const float x = on_host::bfloat16(lanes.of[row % 8 * 4 + owner].a[k / 8 * 2 + row / 8], k % 2);
            const float w = on_host::bfloat16(lanes.of[column * 4 + owner].b[k / 8], k % 2);
            sum += static_cast<double>(x) * static_cast<double>(w);
        }
        d[i] = on_host::toward_zero(sum);
    }
}

}  // namespace fogzo
