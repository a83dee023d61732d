// Per-row integer activations on the CPU.
#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul.h"
#include "view.h"

using namespace fogzo;

namespace {

// codes [count]: +1 where x >= 0, -1 below, 0 where NaN; returns mean abs x.
float sign_row(const float* x, int64_t count, int8_t* codes) {
    constexpr int kSums = 8;  // independent, so that an addition does not wait for the last
    double sums[kSums] = {};
    int64_t i = 0;
    for (; i + kSums <= count; i += kSums) {
        for (int j = 0; j < kSums; ++j) {
            sums[j] += static_cast<double>(__builtin_fabsf(x[i + j]));
        }
    }
    double total = 0.0;
    for (const double sum : sums) {
        total += sum;
    }
    for (; i < count; ++i) {
        total += static_cast<double>(__builtin_fabsf(x[i]));
    }
    for (i = 0; i < count; ++i) {
        codes[i] = static_cast<int8_t>((x[i] >= 0.0f) - (x[i] < 0.0f));
    }
    return static_cast<float>(total / static_cast<double>(count > 0 ? count : 1));
}

}  // namespace

extern "C" int fogzo_cpu_quantize_activation(const float* x, int8_t* codes, float* x_scale, int64_t rows, int64_t cols,
                                             int bits, int threads) {
    const View view = {rows, cols, nullptr, 1, 1};
    int64_t bytes = 0;
    if (rows < 0 || cols < 0 || __builtin_mul_overflow(rows, cols, &bytes) ||
        __builtin_mul_overflow(bytes, 8, &bytes)) {
        return FOGZO_BAD_SIZE;
    }
    if (bits < 1 || bits > 8) {
        return FOGZO_BAD_GRID;
    }
    if ((rows > 0 && x_scale == nullptr) || (view.size() > 0 && (x == nullptr || codes == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    const float q = static_cast<float>((1 << (bits - 1)) - 1);
    const MatmulKernels& matmul = *kernels().matmul;
    each_range(rows, threads, [&](int64_t first, int64_t last) {
        for (int64_t row = first; row < last; ++row) {
            const float* from = x + row * cols;
            int8_t* to = codes + row * cols;
            x_scale[row] = bits == 1 ? sign_row(from, cols, to) : matmul.quantize_row(from, cols, q, to);
        }
    });
    return FOGZO_OK;
}
