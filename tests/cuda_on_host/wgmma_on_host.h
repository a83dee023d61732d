// The instructions of csrc/cuda/wgmma.cuh on the host, from the PTX ISA (section "Asynchronous Warpgroup Level Matrix
// Instructions": fragments for .m64nNk32 and .m64nNk16, matrix descriptor, K-major layout of the 128-byte swizzle).
//
// A product is computed where its group is waited for, from the registers and the memory as they are then. Until then
// its sums hold nothing of use. What its operands held when it was issued must still be there, what is in shared memory
// must have been published by the thread that copied it, and registers must have been fenced since they were written.
#pragma once
#include <map>

#include "ptx_on_host.h"

namespace fogzo {
namespace on_host {

constexpr int kColumns = 128;
constexpr int kSums = kColumns / 2;  // of a thread

struct Product {
    void* d;
    const uint32_t* a[cuda_on_host::kWarp];  // of all lanes
    uint32_t a_before[4];
    uint64_t b;
    std::vector<unsigned char> b_before;  // of the lane that went on first
    void (*run)(const Product&);
};

// What an array of registers held last, and how many fences there had been.
struct Registers {
    std::vector<unsigned char> held;
    uint64_t fences = 0;
};

struct Warpgroup {
    uint64_t block = 0;
    uint64_t fences = 0;
    uint64_t issued = 0;
    std::vector<std::vector<Product>> groups;
    std::map<const void*, Registers> known;
    std::map<const void*, std::pair<int, std::vector<unsigned char>>> sums;  // under way, and their true values
};

inline Warpgroup& warpgroup() {
    static std::vector<Warpgroup> all(1024);
    Warpgroup& mine = all[thread_number()];
    if (mine.block != cuda_on_host::block_number()) {
        mine = {};
        mine.block = cuda_on_host::block_number();
    }
    if (mine.groups.empty()) {
        mine.groups.emplace_back();
    }
    return mine;
}

inline std::vector<unsigned char> bytes_of_array(const void* at, size_t size) {
    const unsigned char* from = static_cast<const unsigned char*>(at);
    return {from, from + size};
}

inline uintptr_t shared_base() { return reinterpret_cast<uintptr_t>(cuda_on_host::dynamic_shared()) / 1024 * 1024; }

// The 32 bytes of a column of b, a row of shared memory; `chunk` of its two.
inline const unsigned char* chunk_of_b(uint64_t b, int column, int chunk) {
    const uint64_t start = (b & 0x3FFF) * 16;
    const uint64_t eight = (b >> 32 & 0x3FFF) * 16;
    const uint64_t at = start + static_cast<uint64_t>(column / 8) * eight + static_cast<uint64_t>(column % 8) * 128 +
                        static_cast<uint64_t>(chunk) * 16;
    return reinterpret_cast<const unsigned char*>(shared_base() + (at ^ (at >> 3 & 0x70)));
}

inline std::vector<unsigned char> whole_b(uint64_t b) {
    std::vector<unsigned char> all;
    for (int i = 0; i < 2 * kColumns; ++i) {
        const unsigned char* from = chunk_of_b(b, i / 2, i % 2);
        all.insert(all.end(), from, from + 16);
    }
    return all;
}

// Whether this lane is the first of its warp that issues a product: nobody else has run since all arrived.
inline bool first_of_warp(uint64_t issued) {
    static std::vector<std::pair<uint64_t, uint64_t>> latest(32);  // block and product
    auto& mine = latest[thread_number() / cuda_on_host::kWarp];
    const std::pair<uint64_t, uint64_t> now = {cuda_on_host::block_number(), issued};
    const bool first = mine != now;
    mine = now;
    return first;
}

inline void check_b(uint64_t b) {
    if (b >> 62 != 1 || (b >> 49 & 7) != 0) {
        cuda_on_host::give_up("multiplies by a matrix that is not of the 128-byte swizzle in whole atoms");
    }
    for (int i = 0; i < 2 * kColumns; ++i) {
        if (unpublished().count(reinterpret_cast<uintptr_t>(chunk_of_b(b, i / 2, i % 2))) != 0) {
            cuda_on_host::give_up("multiplies by shared memory that no publish_to_wgmma stands behind");
        }
    }
}

// Whether a fence stands behind what an array of registers holds now.
inline bool fenced(Warpgroup& mine, const void* registers, size_t size) {
    Registers& before = mine.known[registers];
    const bool same = before.held.size() == size && std::memcmp(before.held.data(), registers, size) == 0;
    const bool right = mine.fences > 0 && (same || before.held.empty() || before.fences < mine.fences);
    before = {bytes_of_array(registers, size), mine.fences};
    return right;
}

inline void check_fenced(Warpgroup& mine, const void* registers, size_t size) {
    if (!fenced(mine, registers, size)) {
        cuda_on_host::give_up("multiplies registers that were written behind the last fence_wgmma");
    }
}

// Of a row of a and a column of b; no more than arithmetic on 32 bytes each, so that it may be fast.
__attribute__((optimize("O3"), no_sanitize("address", "undefined"))) inline int32_t
sum_of(int32_t before, const uint32_t (&a)[8], const uint32_t (&b)[8]) {
    int8_t x[32], w[32];
    std::memcpy(x, a, 32);
    std::memcpy(w, b, 32);
    int32_t sum = 0;
    for (int k = 0; k < 32; ++k) {
        sum += x[k] * w[k];
    }
    return static_cast<int32_t>(static_cast<uint32_t>(before) + static_cast<uint32_t>(sum));  // wraps around
}

inline float sum_of(float before, const uint32_t (&a)[8], const uint32_t (&b)[8]) {
    double sum = before;
    for (int k = 0; k < 16; ++k) {
        sum += static_cast<double>(bfloat16(a[k / 2], k % 2)) * static_cast<double>(bfloat16(b[k / 2], k % 2));
    }
    return toward_zero(sum);
}

// Row g of a, or g + 8, in words of increasing k: word w of each half of k is with lane 4 g + w.
inline void row_of_a(const Product& one, int g, int below, uint32_t (&row)[8]) {
    for (int w = 0; w < 8; ++w) {
        row[w] = one.a[4 * g + w % 4][w / 4 * 2 + below];
    }
}

template <class T, bool add> void run_product(const Product& one) {
    T sums[kSums];
    auto& kept = warpgroup().sums.at(one.d);
    std::memcpy(sums, kept.second.data(), sizeof sums);
    const int lane = static_cast<int>(cuda_on_host::lane_number());
    uint32_t rows[2][8];
    row_of_a(one, lane / 4, 0, rows[0]);
    row_of_a(one, lane / 4, 1, rows[1]);
    for (int j = 0; j < kSums / 2; ++j) {
        const int column = j / 2 * 8 + lane % 4 * 2 + j % 2;
        uint32_t b[8];
        std::memcpy(b, chunk_of_b(one.b, column, 0), 16);
        std::memcpy(b + 4, chunk_of_b(one.b, column, 1), 16);
        for (int below = 0; below < 2; ++below) {
            T& sum = sums[j / 2 * 4 + 2 * below + j % 2];
            sum = sum_of(add ? sum : T(0), rows[below], b);
        }
    }
    std::memcpy(kept.second.data(), sums, sizeof sums);
}

inline void finish(Warpgroup& mine, const Product& one) {
    if (std::memcmp(one.a[cuda_on_host::lane_number()], one.a_before, sizeof one.a_before) != 0) {
        cuda_on_host::give_up("wrote registers of a product under way");
    }
    if (!one.b_before.empty() && one.b_before != whole_b(one.b)) {
        cuda_on_host::give_up("has a product under way whose shared memory was written");
    }
    one.run(one);
    auto& kept = mine.sums.at(one.d);
    if (--kept.first == 0) {
        std::memcpy(one.d, kept.second.data(), kept.second.size());
        mine.known[one.d] = {kept.second, mine.fences};
        mine.sums.erase(one.d);
    }
}

}  // namespace on_host

inline uint32_t shared_address(const void* shared) {
    return static_cast<uint32_t>(reinterpret_cast<uintptr_t>(shared) - on_host::shared_base());
}

inline void publish_to_wgmma() {
    for (auto at = on_host::unpublished().begin(); at != on_host::unpublished().end();) {
        at = at->second == on_host::thread_number() ? on_host::unpublished().erase(at) : std::next(at);
    }
}

inline void fence_wgmma() { ++on_host::warpgroup().fences; }

inline void commit_wgmma() { on_host::warpgroup().groups.emplace_back(); }

// All lanes arrive before the first goes on: until then the others' registers are read.
template <int left> inline void wait_wgmma() {
    on_host::Warpgroup& mine = on_host::warpgroup();
    cuda_on_host::gather<char>(0xFFFFFFFFu, 0, {"wgmma.cuh", __LINE__});
    while (static_cast<int>(mine.groups.size()) - 1 > left) {
        for (const on_host::Product& one : mine.groups.front()) {
            on_host::finish(mine, one);
        }
        mine.groups.erase(mine.groups.begin());
    }
    cuda_on_host::gather<char>(0xFFFFFFFFu, 0, {"wgmma.cuh", __LINE__});
}

template <class T> inline void wgmma_arrived(T&) {}

template <class T> inline void multiply_warpgroup(T (&d)[64], const uint32_t (&a)[4], uint64_t b, bool add) {
    struct Given {
        const uint32_t* a;
        uint64_t b;
    };
    on_host::Warpgroup& mine = on_host::warpgroup();
    on_host::Product one = {};
    one.d = d;
    one.b = b;
    one.run = add ? on_host::run_product<T, true> : on_host::run_product<T, false>;
    std::memcpy(one.a_before, a, sizeof a);
    on_host::check_fenced(mine, a, sizeof a);
    const auto lanes = cuda_on_host::gather(0xFFFFFFFFu, Given{a, b}, {"wgmma.cuh", __LINE__});
    for (int lane = 0; lane < cuda_on_host::kWarp; ++lane) {
        one.a[lane] = lanes.of[lane].a;
        if (lanes.of[lane].b != b) {
            cuda_on_host::give_up("multiplies by another matrix than its warp");
        }
    }
    if (on_host::first_of_warp(++mine.issued)) {
        on_host::check_b(b);
        one.b_before = on_host::whole_b(b);
    }
    auto kept = mine.sums.find(d);
    if (kept == mine.sums.end()) {
        if (add) {
            on_host::check_fenced(mine, d, sizeof d);
        }
        kept = mine.sums.emplace(d, std::make_pair(0, on_host::bytes_of_array(d, sizeof d))).first;
        std::memset(d, cuda_on_host::kPoison, sizeof d);
    }
    ++kept->second.first;
    mine.groups.back().push_back(one);
}

}  // namespace fogzo
