#include "fake_quantize.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

namespace {

constexpr int64_t kChunk = 4096;  // elements that one warp adds up

struct Chunks {
    int64_t length;  // elements of a scale
    int64_t chunk;
    int64_t chunks;  // of a scale
};

// One scale's elements in chunks of equal size, the last excepted.
Chunks chunks_of(int64_t rows, int64_t cols, int64_t scales) {
    const int64_t length = rows * cols / scales;
    return {length, kChunk, (length + kChunk - 1) / kChunk};
}

}  // namespace

extern "C" int fogzo_cuda_fake_quantize(const float* w, const float* scale, float* out, int64_t rows, int64_t cols,
                                        int64_t scale_rows, int64_t scale_cols, int grid, int bits, void* stream) {
    const int status = check_quantized(rows, cols, scale, scale_rows, scale_cols, grid, bits);
    if (status != FOGZO_OK || rows * cols == 0) {
        return status;
    }
    const int64_t count = rows * cols;
    if (w == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(w, scale, out)) {
        return FOGZO_UNALIGNED;
    }
    return launch<fake_quantize_kernel>(blocks_for(count, 4 * kThreads), kThreads, 0, stream, w,
                                        scales_of(scale, rows, cols, scale_rows, scale_cols), out, count,
                                        make_grid(grid, bits), aligned(w, 16) && aligned(out, 16));
}

extern "C" int64_t fogzo_cuda_fake_quantize_backward_workspace(int64_t rows, int64_t cols, int64_t scale_rows,
                                                               int64_t scale_cols) {
    if (check_sizes(rows, cols, 1) != FOGZO_OK || rows * cols == 0 || scale_rows < 1 || scale_rows > rows ||
        scale_cols < 1 || scale_cols > cols) {
        return 0;
    }
    const int64_t scales = scale_rows * scale_cols;
    const int64_t chunks = chunks_of(rows, cols, scales).chunks;
    return chunks == 1 ? 0 : scales * chunks * static_cast<int64_t>(sizeof(double));
}

extern "C" int fogzo_cuda_fake_quantize_backward(const float* grad, const float* w, const float* scale, float* grad_w,
                                                 float* grad_scale, void* workspace, int64_t workspace_bytes,
                                                 int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols,
                                                 int kind, int bits, int surrogate, float limit, void* stream) {
    const int status = check_quantized(rows, cols, scale, scale_rows, scale_cols, kind, bits);
    if (status != FOGZO_OK) {
        return status;
    }
    if (surrogate < 0 || surrogate >= kSurrogates) {
        return FOGZO_BAD_SURROGATE;
    }
    if (!surrogate_fits(kind, surrogate, kPublished)) {
        return FOGZO_BAD_PAIR;
    }
    if (!is_limit(limit, surrogate)) {
        return FOGZO_BAD_LIMIT;
    }
    const int64_t count = rows * cols;
    if (count == 0) {
        return FOGZO_OK;
    }
    if (grad == nullptr || w == nullptr || grad_w == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(grad, w, scale, grad_w, grad_scale)) {
        return FOGZO_UNALIGNED;
    }
    const int64_t scales = scale_rows * scale_cols;
    const int64_t needed = fogzo_cuda_fake_quantize_backward_workspace(rows, cols, scale_rows, scale_cols);
    if (grad_scale != nullptr && (workspace_bytes < needed || (needed > 0 && !aligned(workspace, 8)))) {
        return FOGZO_BAD_WORKSPACE;
    }
    if (grad_scale != nullptr && needed > 0 && workspace == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Chunks chunks = chunks_of(rows, cols, scales);
    const Grid grid = limited(make_grid(kind, bits), limit);
    const double share = sqrt(static_cast<double>(count) * positive_levels(grid));
    const BackwardJob job = {grad,
                             w,
                             grad_w,
                             scales_of(scale, rows, cols, scale_rows, scale_cols),
                             static_cast<double*>(workspace),
                             grad_scale,
                             count,
                             chunks.length,
                             chunks.chunks,
                             chunks.chunk,
                             grad_scale != nullptr ? share : 0.0,
                             grid,
                             surrogate,
                             chunks.length % 4 == 0 && aligned(grad, 16) && aligned(w, 16) && aligned(grad_w, 16)};
    const int launched = launch<fake_quantize_backward_kernel>(blocks_for(scales * chunks.chunks, kThreads / 32),
                                                               kThreads, 0, stream, job);
    if (launched != FOGZO_OK || grad_scale == nullptr || chunks.chunks == 1) {
        return launched;
    }
    return launch<scale_gradient_kernel>(blocks_for(scales, 1), kThreads, 0, stream, job.parts, grad_scale, scales,
                                         chunks.chunks, share);
}
