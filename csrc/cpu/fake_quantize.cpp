#include <cmath>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

int check(const View& view, int kind, int bits) {
    const int status = check_view(view, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    return grid_exists(kind, bits) ? FOGZO_OK : FOGZO_BAD_GRID;
}

struct Backward {
    View view;
    Grid grid;
    int surrogate;
    const float* grad;
    const float* w;
    float* grad_w;
    const FakeQuantizeKernels& kernel;

    double run(int64_t at, int count, float a, bool with_sum) const {
        return kernel.backward({w + at, grad + at, count, a}, grid, surrogate, with_sum, grad_w + at);
    }

    double blocks(const Walk& walk, int64_t first, int64_t last, bool with_sum) const {
        double sum = 0.0;
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block,
                       [&](int i, int count, float a) { sum += run(block.first + i, count, a, with_sum); });
        }
        return sum;
    }

    // The elements of one scale, row by row.
    double scale_sum(int64_t index) const {
        const int64_t group = view.cols / view.scale_cols;
        const int64_t begin = index % view.scale_cols * group;
        const int64_t row = view.scale_rows > 1 ? index / view.scale_cols : 0;
        const int64_t end = view.scale_rows > 1 ? row + 1 : view.rows;
        double sum = 0.0;
        for (int64_t r = row; r < end; ++r) {
            for (int64_t c = 0; c < group; c += kBlock) {
                const int count = static_cast<int>(group - c < kBlock ? group - c : kBlock);
                sum += run(r * view.cols + begin + c, count, view.scale[index], true);
            }
        }
        return sum;
    }

    // Sums whose order depends on the view alone, not on the threads.
    void with_scale_gradient(float* grad_scale, int threads) const {
        const double share = std::sqrt(static_cast<double>(view.size()) * positive_levels(grid));
        const int64_t scales = view.scale_rows * view.scale_cols;
        if (scales > 1) {
            each_range(scales, threads, [&](int64_t first, int64_t last) {
                for (int64_t s = first; s < last; ++s) {
                    grad_scale[s] = static_cast<float>(scale_sum(s) / share);
                }
            });
            return;
        }
        const Walk walk = make_walk(view, true);
        const double sum = sum_of_parts(walk.blocks, threads,
                                        [&](int64_t first, int64_t last) { return blocks(walk, first, last, true); });
        grad_scale[0] = static_cast<float>(sum / share);
    }
};

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
    const FakeQuantizeKernels& kernel = *kernels().fake;
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                kernel.forward(w + block.first + i, out + block.first + i, count, a, grid);
            });
        }
    });
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_fake_quantize_backward(const float* grad, const float* w, const float* scale, float* grad_w,
                                                float* grad_scale, int64_t rows, int64_t cols, int64_t scale_rows,
                                                int64_t scale_cols, int kind, int bits, int surrogate, float limit,
                                                int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const int status = check(view, kind, bits);
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
    if (view.size() == 0) {
        return FOGZO_OK;
    }
    if (grad == nullptr || w == nullptr || grad_w == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Backward job = {view, limited(make_grid(kind, bits), limit), surrogate, grad, w, grad_w, *kernels().fake};
    if (grad_scale != nullptr) {
        job.with_scale_gradient(grad_scale, threads);
        return FOGZO_OK;
    }
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) { job.blocks(walk, first, last, false); });
    return FOGZO_OK;
}
