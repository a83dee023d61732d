#include "quantize.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

extern "C" int fogzo_cuda_quantize(const float* w, const float* scale, uint8_t* codes, int64_t rows, int64_t cols,
                                   int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream) {
    const int status = check_quantized(rows, cols, scale, scale_rows, scale_cols, grid, bits);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    const int64_t count = rows * cols;
    if (w == nullptr || codes == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(w, scale)) {
        return FOGZO_UNALIGNED;
    }
    return launch<quantize_kernel>(blocks_for(count, 4 * kThreads), kThreads, 0, stream, w,
                                   scales_of(scale, rows, cols, scale_rows, scale_cols), codes, count,
                                   make_grid(grid, bits), aligned(w, 16) && aligned(codes, 4));
}

extern "C" int fogzo_cuda_dequantize(const uint8_t* codes, const float* scale, float* out, int64_t rows, int64_t cols,
                                     int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream) {
    const int status = check_quantized(rows, cols, scale, scale_rows, scale_cols, grid, bits);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    const int64_t count = rows * cols;
    if (codes == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(scale, out)) {
        return FOGZO_UNALIGNED;
    }
    return launch<dequantize_kernel>(blocks_for(count, 4 * kThreads), kThreads, 0, stream, codes,
                                     scales_of(scale, rows, cols, scale_rows, scale_cols), out, count,
                                     make_grid(grid, bits), aligned(codes, 4) && aligned(out, 16));
}
