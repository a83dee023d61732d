// d = A * gw + B * (e u) of a thread's part of a tile, noise made in registers.
#pragma once
#include "table.cuh"

namespace fogzo {

// Noises whose code differs; identity and hardtanh differ by a factor alone.
enum DrawKind : int { kUniform = 0, kOfTable = 1, kOfRoot = 2, kOfBits = 3, kDrawKinds = 4 };

inline int draw_kind(int surrogate, int noise) {
    if (noise == kRademacher) {
        return kOfBits;
    }
    return surrogate == kTanh ? kOfTable : surrogate == kApproxSign ? kOfRoot : kUniform;
}

// What the kernels of a launch share.
struct Probing {
    fogzo_cuda_scalars scalars;
    const float* table;  // atanh
    int64_t probes;
    uint32_t first_probe;
};

struct Direction {
    Mixture mixture;
    Stream stream;
    float norm;
    uint32_t negative;  // the signs of 32 probes, one a bit

    __device__ __forceinline__ static Direction of(const Probing& probing, const TensorRow& row) {
        const fogzo_cuda_scalars& s = probing.scalars;
        Direction direction;
        direction.mixture = row.mixture;
        if (s.gamma_at != nullptr) {
            const double gamma = *s.gamma_at;
            direction.mixture.along = static_cast<float>(row.radius * sqrt(1.0 - gamma));
            direction.mixture.across = static_cast<float>(sqrt(gamma));
        }
        direction.stream.seed = s.seed_at != nullptr ? static_cast<uint64_t>(*s.seed_at) : s.seed;
        direction.stream.step = static_cast<uint32_t>(s.step_at != nullptr ? *s.step_at : s.step);
        direction.stream.tensor = row.tensor;
        direction.stream.probe = 0;
        direction.norm = s.norm_at != nullptr ? *s.norm_at : s.norm;
        direction.negative = 0;
        return direction;
    }

    // Goes on to probe i of the call; returns its A. A lane draws the sign of one of 32 probes.
    __device__ __forceinline__ float open(const Probing& probing, int64_t i) {
        if (i % 32 == 0) {
            const uint32_t mine = probing.first_probe + static_cast<uint32_t>(i) + threadIdx.x % 32;
            negative = __ballot_sync(kAllLanes, probe_sign(stream.seed, stream.step, mine) < 0.0f);
        }
        stream.probe = probing.first_probe + static_cast<uint32_t>(i);
        return alignment(mixture, (negative >> (i % 32) & 1u) != 0u ? -1.0f : 1.0f, norm);
    }
};

// The four Philox blocks that serve a thread's elements of a tile.
template <int kind> struct PartNoise {
    Words words[4];
    int first_bit;

    __device__ __forceinline__ void draw(const Stream& stream, int64_t tile) {
        constexpr int64_t per_words = kind == kOfBits ? kBitTile / kTile : 1;
        const int64_t words_of = tile / per_words;
        first_bit = static_cast<int>(tile - words_of * per_words) * kTileBits;
        const uint32_t block = static_cast<uint32_t>(words_of) * kLanes + 4 * (threadIdx.x % 32);
        for (int c = 0; c < 4; ++c) {
            words[c] = philox(stream, block + static_cast<uint32_t>(c));
        }
    }

    // e u of element c of a four.
    __device__ __forceinline__ float bins(int four, int c, float e, int surrogate, const float* table) const {
        if (kind == kOfBits) {
            const int bit = first_bit + four;
            // not bit_of: an index that is no constant would put the words into memory
            const uint32_t low = bit < 32 ? words[c].word[0] : words[c].word[1];
            const uint32_t high = bit < 96 ? words[c].word[2] : words[c].word[3];
            const uint32_t word = bit < 64 ? low : high;
            return (word >> (bit & 31) & 1u) != 0u ? -e : e;
        }
        // not half_of, for the same reason
        const uint32_t first_half = four < 4 ? words[c].word[0] : words[c].word[2];
        const uint32_t second_half = four < 4 ? words[c].word[1] : words[c].word[3];
        const uint32_t half = ((four & 2) == 0 ? first_half : second_half) >> (16 * (four & 1)) & 0xFFFFu;
        if (kind == kOfTable) {
            return published_noise(half, kTanh, table);
        }
        if (kind == kOfRoot) {
            return published_noise(half, kApproxSign, table);
        }
        return surrogate == kHardtanh ? z_of(half) : z_of(half) * 0.5f;
    }
};

}  // namespace fogzo
