#include <cmath>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

enum Rule : int { kRoot = 0, kMean = 1, kMax = 2, kRange = 3, kRules = 4 };

struct Scaling {
    const float* w;
    int64_t count;  // elements of one scale
    int rule;
    double factor;
    float least;
    const FakeQuantizeKernels& kernel;

    bool by_sum() const { return rule < kMax; }

    double run(int64_t at, int n) const {
        if (rule == kRoot) {
            return kernel.square_sum(w + at, n, 1.0f);
        }
        return by_sum() ? kernel.abs_sum(w + at, n) : static_cast<double>(kernel.abs_max(w + at, n));
    }

    double both(double a, double b) const {
        if (by_sum()) {
            return a + b;
        }
        return b > a || b != b ? b : a;  // NaN stays
    }

    // The sum or the largest of the blocks first .. last - 1 of the scale that begins at `at`.
    double blocks(int64_t at, int64_t first, int64_t last) const {
        double found = 0.0;
        for (int64_t b = first; b < last; ++b) {
            const int64_t left = count - b * kBlock;
            found = both(found, run(at + b * kBlock, static_cast<int>(left < kBlock ? left : kBlock)));
        }
        return found;
    }

    float scale_of(double found) const {
        float a = 0.0f;
        if (rule == kMax) {
            a = static_cast<float>(found) / static_cast<float>(factor);
            a = a < HUGE_VALF ? std::nextafter(a, HUGE_VALF) : a;
        } else if (rule == kRange) {
            a = static_cast<float>(found / factor);
        } else {
            const double mean = found / static_cast<double>(count);
            a = static_cast<float>(factor * (rule == kRoot ? std::sqrt(mean) : mean));
        }
        return a < least ? least : a;  // NaN stays
    }
};

}  // namespace

extern "C" int fogzo_cpu_compute_scale(const float* w, float* scale, int64_t scales, int64_t count, int rule,
                                       double factor, double least, int threads) {
    const int status = check_sizes(scales, count, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (rule < 0 || rule >= kRules) {
        return FOGZO_BAD_RULE;
    }
    if (scales * count == 0) {
        return FOGZO_OK;
    }
    if (w == nullptr || scale == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Scaling job = {w, count, rule, factor, static_cast<float>(least), *kernels().fake};
    const int64_t blocks = (count + kBlock - 1) / kBlock;
    if (scales == 1) {
        const auto part = [&](int64_t first, int64_t last) { return job.blocks(0, first, last); };
        const auto both = [&](double a, double b) { return job.both(a, b); };
        scale[0] = job.scale_of(fold_parts(blocks, threads, part, both));
        return FOGZO_OK;
    }
    each_range(scales, threads, [&](int64_t first, int64_t last) {
        for (int64_t s = first; s < last; ++s) {
            scale[s] = job.scale_of(job.blocks(s * count, 0, blocks));
        }
    });
    return FOGZO_OK;
}
