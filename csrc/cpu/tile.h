// The part of the noise that each instruction set brings: one tile of 1024 elements.
#pragma once
#include <stdint.h>

#include "fogzo/philox.h"

namespace fogzo {

struct TileKernels {
    const char* name;
    // words [4, 128]: word w of block first_block + i at w * 128 + i.
    void (*words)(Stream stream, uint32_t first_block, uint32_t* words);
    // out [1024]: e * u from the halves of words.
    void (*published)(const uint32_t* words, int surrogate, const float* table, float* out);
    // out [1024]: +-e from bits first_bit .. first_bit + 7 of words.
    void (*rademacher)(const uint32_t* words, int first_bit, float e, float* out);
};

extern const TileKernels kScalarTile;
#if defined(FOGZO_HAVE_AVX2)
extern const TileKernels kAvx2Tile;
#endif

// The kernels in use.
const TileKernels& tile_kernels();

}  // namespace fogzo
