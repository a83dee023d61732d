#include "fogzo/cpu.h"
#include "fogzo/grid.h"
#include "view.h"

using namespace fogzo;

namespace {

// The grid's kind is a constant inside the loop, so that the loop has no branch.
template <int kind> void forward(const float* w, float* out, int n, float a, Grid grid) {
    grid.kind = kind;
    const float inverse = 1.0f / a;
    for (int i = 0; i < n; ++i) {
        const float x = w[i] * inverse;
        const float value = a * value_of(grid, code_of(grid, x));
        out[i] = x == x ? value : x;
    }
}

template <int surrogate>
void backward(const float* grad, const float* w, float* grad_w, int n, float a, const Grid& grid) {
    const float inverse = 1.0f / a;
    for (int i = 0; i < n; ++i) {
        grad_w[i] = surrogate_gradient(grid, surrogate, w[i] * inverse, grad[i]);
    }
}

using Backward = void (*)(const float*, const float*, float*, int, float, const Grid&);

Backward backward_of(int surrogate) {
    switch (surrogate) {
    case kIdentity: return backward<kIdentity>;
    case kClipped: return backward<kClipped>;
    case kHardtanh: return backward<kHardtanh>;
    case kApproxSign: return backward<kApproxSign>;
    case kTrust: return backward<kTrust>;
    default: return nullptr;
    }
}

int check(const View& view, int kind, int bits) {
    const int status = check_view(view, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    return grid_exists(kind, bits) ? FOGZO_OK : FOGZO_BAD_GRID;
}

}  // namespace

extern "C" int fogzo_cpu_fake_quantize(const float* w, const float* scale, float* out, int64_t rows, int64_t cols,
                                       int64_t scale_rows, int64_t scale_cols, int kind, int bits, int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const int status = check(view, kind, bits);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    if (w == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Grid grid = make_grid(kind, bits);
    const auto kernel = kind == kSign ? forward<kSign> : forward<kTernary>;
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                kernel(w + block.first + i, out + block.first + i, count, a, grid);
            });
        }
    });
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_fake_quantize_backward(const float* grad, const float* w, const float* scale, float* grad_w,
                                                int64_t rows, int64_t cols, int64_t scale_rows, int64_t scale_cols,
                                                int kind, int bits, int surrogate, int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const int status = check(view, kind, bits);
    if (status != FOGZO_OK) {
        return status;
    }
    const Backward kernel = backward_of(surrogate);
    if (kernel == nullptr) {
        return FOGZO_BAD_SURROGATE;
    }
    if (!surrogate_fits(kind, surrogate, kPublished)) {
        return FOGZO_BAD_PAIR;
    }
    if (view.size() == 0) {
        return FOGZO_OK;
    }
    if (grad == nullptr || w == nullptr || grad_w == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Grid grid = make_grid(kind, bits);
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                const int64_t at = block.first + i;
                kernel(grad + at, w + at, grad_w + at, count, a, grid);
            });
        }
    });
    return FOGZO_OK;
}
