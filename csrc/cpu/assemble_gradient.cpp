#include "fogzo/cpu.h"
#include "source.h"
#include "view.h"

using namespace fogzo;

extern "C" int fogzo_cpu_assemble_gradient(const float* grad, const float* scale, const float* differences, float* out,
                                           const float* table, int64_t rows, int64_t cols, int64_t scale_rows,
                                           int64_t scale_cols, int64_t offset, int64_t row_pitch, int surrogate,
                                           int noise, int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                                           int64_t tensor, double gamma, float norm, int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const Draw draw = {surrogate, noise, seed, step, tensor, table, offset, row_pitch};
    int status = check_view(view, 1);
    if (status == FOGZO_OK) {
        status = check_draw(draw, rows, cols, first_probe, probes);
    }
    if (status == FOGZO_OK && !is_gamma(gamma)) {
        status = FOGZO_BAD_GAMMA;
    }
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    if (grad == nullptr || differences == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Mixture mixture = make_mixture(surrogate, noise, gamma);
    const Walk walk = make_walk(view, row_pitch == cols);
    const PerturbKernels& kernel = *kernels().perturb;
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        ProbeSources sources(draw, mixture.across, first_probe);
        float room[kBlock + kSlack] = {};
        float sum[kBlock];
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            for (int64_t p = 0; p < probes; ++p) {
                const float* noise_at = sources.of(p).at(draw.number(block.row, block.col), block.n, room);
                const float along = alignment(mixture, sources.sign(p), norm);
                each_scale(view, block, [&](int i, int count, float a) {
                    const float* g = grad + block.first + i;
                    const Run run = {g, g, noise_at + i, count, 1.0f, whitening(a, mixture.e), along};
                    kernel.accumulate(run, differences[p], p == 0, sum + i);
                });
            }
            each_scale(view, block, [&](int i, int count, float a) {
                const float factor = gain(static_cast<float>(probes), mixture.e, a);
                kernel.scaled(sum + i, count, factor, out + block.first + i);
            });
        }
    });
    return FOGZO_OK;
}
