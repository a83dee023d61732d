// From Philox words to e * u, the noise in bins, for one element.
//
// Published noise: element k lies in tile k / 1024; with i = k % 128 and j = (k % 1024) / 128 it
// takes 16-bit half j (low half of a word first) of block tile * 128 + i.
// Rademacher noise: tile k / 16384, block tile * 128 + k % 128, bit (k % 16384) / 128.
#pragma once
#include <math.h>

#include "fogzo/philox.h"

namespace fogzo {

enum Surrogate : int {
    kIdentity = 0,
    kClipped = 1,
    kHardtanh = 2,
    kTanh = 3,
    kApproxSign = 4,
    kTrust = 5,
    kSurrogates = 6
};

enum NoiseKind : int { kPublished = 0, kRademacher = 1, kNoiseKinds = 2 };

constexpr int kLanes = 128;                // neighbouring elements served by distinct blocks
constexpr int kTile = 8 * kLanes;          // elements served by 128 blocks of 16-bit halves
constexpr int kBitTile = 128 * kLanes;     // elements served by 128 blocks of single bits
constexpr int kTileBits = kTile / kLanes;  // bits of a block that one kTile of elements uses
constexpr int kTableSize = 32768;          // magnitudes of tanh noise
constexpr int64_t kMaxElements = int64_t(1) << 35;

// Radius e in bins, so that u has variance 1: the float64 numbers that the reference computes.
FOGZO_FN double radius(int surrogate, int noise) {
    if (noise == kRademacher) {
        return surrogate == kHardtanh || surrogate == kTanh || surrogate == kApproxSign ? 1.0 : 0.5;
    }
    switch (surrogate) {
    case kHardtanh: return 0.5773502691896258;    // 1 / sqrt 3
    case kTanh: return 0.9068996821171089;        // pi / sqrt 12
    case kApproxSign: return 0.4082482904638631;  // 1 / sqrt 6
    default: return 0.2886751345948129;           // 1 / (2 sqrt 3)
    }
}

FOGZO_FN uint32_t half_of(Words words, int j) { return (words.word[j >> 1] >> (16 * (j & 1))) & 0xFFFFu; }

FOGZO_FN uint32_t bit_of(Words words, int bit) { return (words.word[bit >> 5] >> (bit & 31)) & 1u; }

// z = (2h + 1 - 65536) / 65536, exact, in (-1, 1).
FOGZO_FN float z_of(uint32_t half) {
    return static_cast<float>(2 * static_cast<int32_t>(half) - 65535) * (1.0f / 65536.0f);
}

// e * u from a half; table[k] = float32(atanh((2k + 1) / 65536)), read by tanh alone.
FOGZO_FN float published_noise(uint32_t half, int surrogate, const float* table) {
    const float z = z_of(half);
    if (surrogate == kHardtanh) {
        return z;
    }
    if (surrogate == kTanh) {
        return half >= 32768u ? table[half - 32768u] : -table[32767u - half];
    }
    if (surrogate == kApproxSign) {
        const float magnitude = 1.0f - sqrtf(1.0f - fabsf(z));
        return z < 0.0f ? -magnitude : magnitude;
    }
    return z * 0.5f;
}

// e * u of element k, alone.
FOGZO_FN float element_noise(Stream stream, uint64_t k, int surrogate, int noise, float e, const float* table) {
    const uint32_t lane = static_cast<uint32_t>(k % kLanes);
    if (noise == kRademacher) {
        const uint32_t block = static_cast<uint32_t>(k / kBitTile) * kLanes + lane;
        const int bit = static_cast<int>(k % kBitTile) / kLanes;
        return bit_of(philox(stream, block), bit) != 0u ? -e : e;
    }
    const uint32_t block = static_cast<uint32_t>(k / kTile) * kLanes + lane;
    const int j = static_cast<int>(k % kTile) / kLanes;
    return published_noise(half_of(philox(stream, block), j), surrogate, table);
}

// s = +-1 of a probe: the top bit of word 0 of block 0 of the stream of no tensor.
FOGZO_FN float probe_sign(uint64_t seed, uint32_t step, uint32_t probe) {
    const Words words = philox(Stream{seed, step, kWholeProbe, probe}, 0u);
    return (words.word[0] >> 31) != 0u ? -1.0f : 1.0f;
}

}  // namespace fogzo
