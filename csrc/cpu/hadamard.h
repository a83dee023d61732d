// How rows of any length are rotated.
#pragma once
#include <cmath>
#include <cstdint>

#include "kernels.h"

namespace fogzo {

// In place: full blocks, then the powers of two of the remainder, largest first.
inline void rotate_row(const HadamardKernels& kernel, float* x, int64_t cols, int64_t block) {
    int64_t m = block;
    for (int64_t at = 0; at < cols; at += m) {
        while (m > cols - at) {
            m /= 2;
        }
        kernel.rotate(x + at, m, static_cast<float>(1.0 / std::sqrt(static_cast<double>(m))));
    }
}

}  // namespace fogzo
