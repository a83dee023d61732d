#include "quantize_activation.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

extern "C" int fogzo_cuda_quantize_activation(const void* x, int8_t* codes, float* x_scale, int64_t rows, int64_t cols,
                                              int bits, int x_type, void* stream) {
    const int status = check_sizes(rows, cols, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (bits < 1 || bits > 8) {
        return FOGZO_BAD_GRID;
    }
    if (x_type != 0 && x_type != 1) {
        return FOGZO_BAD_TYPE;
    }
    if ((rows > 0 && x_scale == nullptr) || (rows * cols > 0 && (x == nullptr || codes == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    if (!aligned(x, x_type == 0 ? 4 : 2) || !element_aligned(x_scale)) {
        return FOGZO_UNALIGNED;
    }
    if (rows == 0) {
        return FOGZO_OK;
    }
    const bool wide = x_type == 0;
    const ActivationJob job = {wide ? static_cast<const float*>(x) : nullptr,
                               wide ? nullptr : static_cast<const uint16_t*>(x),
                               codes,
                               x_scale,
                               rows,
                               cols,
                               static_cast<float>((1 << (bits - 1)) - 1),
                               cols % 4 == 0 && aligned(x, wide ? 16 : 8) && aligned(codes, 4)};
    return bits == 1 ? launch<sign_activation_kernel>(blocks_for(rows, 1), kThreads, 0, stream, job)
                     : launch<quantize_activation_kernel>(blocks_for(rows, 1), kThreads, 0, stream, job);
}
