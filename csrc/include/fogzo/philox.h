// Philox4x32 with 7 rounds: counter (block, probe, step, tensor), key = seed (low word, high word).
#pragma once
#include <stdint.h>

#include "fogzo/macros.h"

namespace fogzo {

constexpr uint32_t kPhiloxMul0 = 0xD2511F53u;
constexpr uint32_t kPhiloxMul1 = 0xCD9E8D57u;
constexpr uint32_t kPhiloxWeyl0 = 0x9E3779B9u;
constexpr uint32_t kPhiloxWeyl1 = 0xBB67AE85u;
constexpr int kPhiloxRounds = 7;

// The tensor word of the draws that belong to a whole probe, not to one tensor.
constexpr uint32_t kWholeProbe = 0xFFFFFFFFu;

struct Words {
    uint32_t word[4];
};

// Which stream of blocks: everything in key and counter except the block.
struct Stream {
    uint64_t seed;
    uint32_t step;
    uint32_t tensor;
    uint32_t probe;
};

FOGZO_FN Words philox(Stream stream, uint32_t block) {
    uint32_t key0 = static_cast<uint32_t>(stream.seed);
    uint32_t key1 = static_cast<uint32_t>(stream.seed >> 32);
    uint32_t c0 = block;
    uint32_t c1 = stream.probe;
    uint32_t c2 = stream.step;
    uint32_t c3 = stream.tensor;
    for (int round = 0; round < kPhiloxRounds; ++round) {
        const uint64_t product0 = static_cast<uint64_t>(kPhiloxMul0) * c0;
        const uint64_t product1 = static_cast<uint64_t>(kPhiloxMul1) * c2;
        c0 = static_cast<uint32_t>(product1 >> 32) ^ c1 ^ key0;
        c2 = static_cast<uint32_t>(product0 >> 32) ^ c3 ^ key1;
        c1 = static_cast<uint32_t>(product1);
        c3 = static_cast<uint32_t>(product0);
        key0 += kPhiloxWeyl0;
        key1 += kPhiloxWeyl1;
    }
    return {{c0, c1, c2, c3}};
}

}  // namespace fogzo
