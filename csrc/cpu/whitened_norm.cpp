#include "fogzo/cpu.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

// sum of float64(g * (a * e))^2 over one tensor.
double tensor_sum(const View& view, const float* grad, float e, int threads) {
    const FakeQuantizeKernels& kernel = *kernels().fake;
    const Walk walk = make_walk(view, true);
    return sum_of_parts(walk.blocks, threads, [&](int64_t first, int64_t last) {
        double sum = 0.0;
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                sum += kernel.square_sum(grad + block.first + i, count, whitening(a, e));
            });
        }
        return sum;
    });
}

}  // namespace

extern "C" int fogzo_cpu_whitened_norm(const float* const* grads, const float* const* scales, const int64_t* rows,
                                       const int64_t* cols, const int64_t* scale_rows, const int64_t* scale_cols,
                                       const int* surrogates, int64_t tensors, int noise, float* out, int threads) {
    if (tensors < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (noise < 0 || noise >= kNoiseKinds) {
        return FOGZO_BAD_NOISE;
    }
    if (out == nullptr ||
        (tensors > 0 && (grads == nullptr || scales == nullptr || rows == nullptr || cols == nullptr ||
                         scale_rows == nullptr || scale_cols == nullptr || surrogates == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    for (int64_t t = 0; t < tensors; ++t) {
        const View view = {rows[t], cols[t], scales[t], scale_rows[t], scale_cols[t]};
        const int status = check_view(view, 1);
        if (status != FOGZO_OK) {
            return status;
        }
        if (surrogates[t] < 0 || surrogates[t] >= kSurrogates) {
            return FOGZO_BAD_SURROGATE;
        }
        if (view.size() > 0 && grads[t] == nullptr) {
            return FOGZO_NULL_POINTER;
        }
    }
    double sum = 0.0;
    for (int64_t t = 0; t < tensors; ++t) {
        const View view = {rows[t], cols[t], scales[t], scale_rows[t], scale_cols[t]};
        if (view.size() > 0) {
            sum += tensor_sum(view, grads[t], static_cast<float>(radius(surrogates[t], noise)), threads);
        }
    }
    *out = static_cast<float>(std::sqrt(sum));
    return FOGZO_OK;
}
