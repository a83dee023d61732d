#include "hadamard.h"

#include <cstring>

#include "fogzo/cpu.h"
#include "view.h"

using namespace fogzo;

extern "C" int fogzo_cpu_hadamard(const float* x, float* out, int64_t rows, int64_t cols, int64_t block, int threads) {
    const float one = 1.0f;
    const View view = {rows, cols, &one, 1, 1};
    const int status = check_view(view, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (block < 1 || block > int64_t(1) << 20 || (block & (block - 1)) != 0) {
        return FOGZO_BAD_BLOCK;
    }
    if (view.size() == 0) {
        return FOGZO_OK;
    }
    if (x == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const HadamardKernels& kernel = *kernels().hadamard;
    each_range(rows, threads, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
            float* row = out + r * cols;
            if (out != x) {
                std::memcpy(row, x + r * cols, sizeof(float) * static_cast<size_t>(cols));
            }
            rotate_row(kernel, row, cols, block);
        }
    });
    return FOGZO_OK;
}
