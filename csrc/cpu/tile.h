// The part of the noise that each instruction set brings: one tile of 1024 elements.
#pragma once
#include <stdint.h>

#include "fogzo/noise.h"

namespace fogzo {

// What Philox makes of the blocks of a tile before the probe comes in; all probes start from it.
struct TileStart {
    uint32_t first_block;
    alignas(32) uint32_t room[8 * kLanes];
};

struct TileKernels {
    // words [4, 128]: word w of block first_block + i at w * 128 + i. Leaves in start what other probes begin from.
    void (*first_words)(Stream stream, uint32_t first_block, TileStart* start, uint32_t* words);
    // The same of a stream that differs from start's by its probe alone.
    void (*next_words)(Stream stream, const TileStart& start, uint32_t* words);
    // out [1024]: across * (e u) from the halves of words; across in [0, 1].
    void (*published)(const uint32_t* words, int surrogate, const float* table, float across, float* out);
    // out [1024]: +-magnitude from bits first_bit .. first_bit + 7 of words.
    void (*rademacher)(const uint32_t* words, int first_bit, float magnitude, float* out);
};

extern const TileKernels kScalarTile;
#if defined(FOGZO_HAVE_AVX2)
extern const TileKernels kAvx2Tile;
#endif

}  // namespace fogzo
