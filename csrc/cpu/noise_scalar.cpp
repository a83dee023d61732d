#include "fogzo/noise.h"
#include "tile.h"

namespace fogzo {
namespace {

void next_words(Stream stream, const TileStart& start, uint32_t* out) {
    for (int i = 0; i < kLanes; ++i) {
        const Words block = philox(stream, start.first_block + static_cast<uint32_t>(i));
        for (int w = 0; w < 4; ++w) {
            out[w * kLanes + i] = block.word[w];
        }
    }
}

void first_words(Stream stream, uint32_t first_block, TileStart* start, uint32_t* out) {
    start->first_block = first_block;
    next_words(stream, *start, out);
}

template <int surrogate> void published_as(const uint32_t* in, const float* table, float across, float* out) {
    for (int j = 0; j < 8; ++j) {
        const uint32_t* word = in + (j >> 1) * kLanes;
        const int shift = 16 * (j & 1);
        for (int i = 0; i < kLanes; ++i) {
            out[j * kLanes + i] = across * published_noise((word[i] >> shift) & 0xFFFFu, surrogate, table);
        }
    }
}

void published(const uint32_t* in, int surrogate, const float* table, float across, float* out) {
    switch (surrogate) {
    case kHardtanh: return published_as<kHardtanh>(in, table, across, out);
    case kTanh: return published_as<kTanh>(in, table, across, out);
    case kApproxSign: return published_as<kApproxSign>(in, table, across, out);
    default: return published_as<kIdentity>(in, table, across, out);
    }
}

void rademacher(const uint32_t* in, int first_bit, float magnitude, float* out) {
    for (int j = 0; j < kTileBits; ++j) {
        const int bit = first_bit + j;
        const uint32_t* word = in + (bit >> 5) * kLanes;
        for (int i = 0; i < kLanes; ++i) {
            out[j * kLanes + i] = ((word[i] >> (bit & 31)) & 1u) != 0u ? -magnitude : magnitude;
        }
    }
}

}  // namespace

const TileKernels kScalarTile = {first_words, next_words, published, rademacher};

}  // namespace fogzo
