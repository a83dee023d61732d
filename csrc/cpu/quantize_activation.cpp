// Per-row integer activations on the CPU.
#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul.h"
#include "view.h"

using namespace fogzo;

extern "C" int fogzo_cpu_quantize_activation(const float* x, int8_t* codes, float* x_scale, int64_t rows, int64_t cols,
                                             int bits, int threads) {
    const View view = {rows, cols, nullptr, 1, 1};
    int64_t bytes = 0;
    if (rows < 0 || cols < 0 || __builtin_mul_overflow(rows, cols, &bytes) ||
        __builtin_mul_overflow(bytes, 8, &bytes)) {
        return FOGZO_BAD_SIZE;
    }
    if (bits < 2 || bits > 8) {
        return FOGZO_BAD_GRID;
    }
    if ((rows > 0 && x_scale == nullptr) || (view.size() > 0 && (x == nullptr || codes == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    const float q = static_cast<float>((1 << (bits - 1)) - 1);
    const MatmulKernels& matmul = *kernels().matmul;
    each_range(rows, threads, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            x_scale[row] = matmul.quantize_row(x + row * cols, cols, q, codes + row * cols);
        }
    });
    return FOGZO_OK;
}
