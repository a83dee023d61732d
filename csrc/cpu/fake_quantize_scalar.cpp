#include "fogzo/grid.h"
#include "kernels.h"
#include "sum.h"

namespace fogzo {
namespace {

// The grid's kind is a constant inside the loop, so that the loop has no branch.
template <int kind> void forward_as(const float* w, float* out, int n, float a, Grid grid) {
    grid.kind = kind;
    const float inverse = 1.0f / a;
    for (int i = 0; i < n; ++i) {
        const float x = w[i] * inverse;
        const float value = a * value_of(grid, code_of(grid, x));
        out[i] = x == x ? value : x;
    }
}

void forward(const float* w, float* out, int n, float a, const Grid& grid) {
    if (grid.kind == kSign) {
        forward_as<kSign>(w, out, n, a, grid);
    } else {
        forward_as<kTernary>(w, out, n, a, grid);
    }
}

template <int surrogate> void slopes_as(const Weights& run, const Grid& grid, float* grad_w) {
    const float inverse = 1.0f / run.a;
    for (int i = 0; i < run.n; ++i) {
        grad_w[i] = surrogate_gradient(grid, surrogate, run.w[i] * inverse, run.grad[i]);
    }
}

void slopes(const Weights& run, const Grid& grid, int surrogate, float* grad_w) {
    switch (surrogate) {
    case kIdentity: return slopes_as<kIdentity>(run, grid, grad_w);
    case kClipped: return slopes_as<kClipped>(run, grid, grad_w);
    case kHardtanh: return slopes_as<kHardtanh>(run, grid, grad_w);
    case kTanh: return slopes_as<kTanh>(run, grid, grad_w);
    case kApproxSign: return slopes_as<kApproxSign>(run, grid, grad_w);
    default: return slopes_as<kTrust>(run, grid, grad_w);
    }
}

double backward(const Weights& run, const Grid& grid, int surrogate, bool with_sum, float* grad_w) {
    double lanes[kLanesOfSum] = {};
    if (with_sum) {
        const float inverse = 1.0f / run.a;
        for (int i = 0; i < run.n; ++i) {
            const double t = static_cast<double>(scale_slope(grid, run.w[i] * inverse));
            lanes[i % kLanesOfSum] += static_cast<double>(run.grad[i]) * t;
        }
    }
    slopes(run, grid, surrogate, grad_w);  // after the sum: grad_w may be grad
    return sum_of_lanes(lanes);
}

double square_sum(const float* grad, int n, float factor) {
    double lanes[kLanesOfSum] = {};
    for (int i = 0; i < n; ++i) {
        const double whitened = static_cast<double>(grad[i] * factor);
        lanes[i % kLanesOfSum] += whitened * whitened;
    }
    return sum_of_lanes(lanes);
}

double abs_sum(const float* w, int n) {
    double lanes[kLanesOfSum] = {};
    for (int i = 0; i < n; ++i) {
        lanes[i % kLanesOfSum] += static_cast<double>(fabsf(w[i]));
    }
    return sum_of_lanes(lanes);
}

float abs_max(const float* w, int n) {
    float most = 0.0f;
    for (int i = 0; i < n; ++i) {
        const float x = fabsf(w[i]);
        most = x > most || x != x ? x : most;
    }
    return most;
}

}  // namespace

const FakeQuantizeKernels kScalarFake = {forward, backward, square_sum, abs_sum, abs_max};

}  // namespace fogzo
