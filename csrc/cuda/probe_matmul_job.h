// What the kernels of probe_matmul are given; the launcher fills it in.
#pragma once
#include <stdint.h>

namespace fogzo {

enum MatmulInput : int { kFloat32X = 0, kBfloat16X = 1, kInt8X = 2 };

// Tiles that the product is cut into (see probe_matmul_tiles.cuh, and probe_matmul_wgmma.cuh for the last two).
enum MatmulShape : int { kManyRows = 0, kFewRows = 1, kGroupScale = 2, kWgmma = 3, kWgmmaGroupScale = 4 };

constexpr int kStep = 128;                  // k of one stage of a tile
constexpr int kSpan = 64;                   // k of a row that four threads hold; groups begin at whole ones
constexpr int kBand = 8;                    // tiles of rows side by side: their codes stay in the second cache
constexpr int64_t kMostProducts = 1 << 16;  // of two int8 numbers, so many fit int32 whatever they are

// How codes become operands: q = mul * code + add, an integer with value(code) = unit * q (see operand_rule).
struct OperandRule {
    uint32_t mask;   // int8: of the bits that a code of a whole byte has, in each byte
    uint32_t mul;    // int8: q + 128 = mul * code + (add + 128) in each byte, without a carry
    uint32_t add;    // add + 128 in each byte
    uint32_t table;  // int8, up to two bits: byte c is q of code c
    // Pairs of bfloat16 numbers: mul, 16 mul, add - 16 mul, add.
    uint32_t factor;
    uint32_t factor16;
    uint32_t offset;
    uint32_t offset0;
};

// y = unit * a[n] * x_scale[row] * sum + bias[n]; the sum of int8 x is exact before its one rounding.
struct MatmulOutput {
    void* y;                // [sides, rows, n_size], bfloat16 where that is x's type, else float32
    const float* scale;     // a, [scale_rows, groups]
    const float* x_scale;   // [x rows], or null
    const float* bias;      // [n_size], or null
    const int32_t* x_sums;  // [x rows, groups] where value = q + 1/2: sums of x, and unit is 1/2; else null
    float unit;
    int64_t scale_rows;  // 1 or n_size
    int64_t groups;
    int64_t n_size;
};

// Tiles of x [batches, rows, x_pitch] times codes [batches or 1, columns, code_pitch]. Column c is output c % n_size
// of side c / n_size, so that a tile of x serves all sides that share it.
struct MatmulJob {
    const unsigned char* x;      // rows of x_pitch bytes, a multiple of 16 and so aligned; zeros behind K and groups
    const unsigned char* codes;  // rows of code_pitch bytes, the same
    void* parts;                 // [splits, sides, rows, n_size] sums, int32 or float32, or null: y is written
    int64_t rows;                // of a batch
    int64_t x_rows;              // of all batches
    int64_t columns;
    int64_t x_pitch;
    int64_t code_pitch;
    int64_t x_batch;  // from one batch to the next, in rows
    int64_t code_batch;
    int spans;          // of kSpan k
    int spans_a_group;  // with a scale a group
    int steps_a_split;
    int64_t sides_a_batch;
    int64_t sides;
    int tiles_m;
    int tiles_n;
    int splits;
    OperandRule rule;
    MatmulOutput out;
};

}  // namespace fogzo
