// Whether sizes fit in memory, and scales their view: checks that read no array.
#pragma once
#include <stdint.h>

#include "fogzo/status.h"

namespace fogzo {

// Sizes whose float32 array of `copies` views fits in an int64 of bytes.
inline int check_sizes(int64_t rows, int64_t cols, int64_t copies) {
    int64_t elements = 0;
    int64_t bytes = 0;
    const bool fit = rows >= 0 && cols >= 0 && copies >= 0 && !__builtin_mul_overflow(rows, cols, &elements) &&
                     !__builtin_mul_overflow(elements, int64_t(8), &bytes) &&
                     !__builtin_mul_overflow(bytes, copies, &bytes);
    return fit ? FOGZO_OK : FOGZO_BAD_SIZE;
}

// The same, and scales that fit the view.
inline int check_shape(int64_t rows, int64_t cols, const float* scale, int64_t scale_rows, int64_t scale_cols,
                       int64_t copies) {
    const int status = check_sizes(rows, cols, copies);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    if ((scale_rows != 1 && scale_rows != rows) || scale_cols < 1 || cols % scale_cols != 0) {
        return FOGZO_BAD_SCALE_SHAPE;
    }
    return scale == nullptr ? FOGZO_NULL_POINTER : FOGZO_OK;
}

}  // namespace fogzo
