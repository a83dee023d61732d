#include "fogzo/cpu.h"
#include "view.h"

using namespace fogzo;

namespace {

constexpr int kLanesOfSum = 8;
constexpr int64_t kParts = 64;  // partial sums a tensor: fixed, so the order does not depend on threads

// sum of float64(g * (a * e))^2 over one block, in 8 interleaved sums.
double block_sum(const View& view, const Block& block, const float* grad, float e) {
    double lanes[kLanesOfSum] = {};
    each_scale(view, block, [&](int begin, int count, float a) {
        const float factor = whitening(a, e);
        const float* g = grad + block.first + begin;
        int i = 0;
        for (; i + kLanesOfSum <= count; i += kLanesOfSum) {
            for (int lane = 0; lane < kLanesOfSum; ++lane) {
                const double gw = static_cast<double>(g[i + lane] * factor);
                lanes[lane] += gw * gw;
            }
        }
        for (; i < count; ++i) {
            const double gw = static_cast<double>(g[i] * factor);
            lanes[i % kLanesOfSum] += gw * gw;
        }
    });
    return ((lanes[0] + lanes[1]) + (lanes[2] + lanes[3])) + ((lanes[4] + lanes[5]) + (lanes[6] + lanes[7]));
}

double tensor_sum(const View& view, const float* grad, float e, int threads) {
    const Walk walk = make_walk(view, true);
    double parts[kParts] = {};
    const int64_t per_part = (walk.blocks + kParts - 1) / kParts;
    each_range(kParts, walk.blocks < 8 * kParts ? 1 : threads, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            const int64_t end = (p + 1) * per_part < walk.blocks ? (p + 1) * per_part : walk.blocks;
            for (int64_t b = p * per_part; b < end; ++b) {
                parts[p] += block_sum(view, walk.at(b), grad, e);
            }
        }
    });
    double sum = 0.0;
    for (const double part : parts) {
        sum += part;
    }
    return sum;
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
