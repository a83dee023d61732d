// One tensor of a call that serves many, readable from C.
#pragma once
#include <stdint.h>

// Its arrays and sizes, as the single calls take them. An operation reads what it needs: assemble_gradient neither w
// nor flip_count nor grid nor bits.
typedef struct fogzo_tensor {
    const float* w;
    const float* grad;
    const float* scale;
    void* out;
    int64_t* flip_count;
    int64_t rows, cols, scale_rows, scale_cols, offset, row_pitch, tensor;
    int grid, bits, surrogate;
} fogzo_tensor;
