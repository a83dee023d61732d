#include "fogzo/cpu.h"
#include "source.h"
#include "view.h"

using namespace fogzo;

namespace {

// What all tensors of a call share.
struct Shared {
    const float* differences;
    const float* table;
    int noise;
    int64_t probes;
    int64_t first_probe;
    uint64_t seed;
    int64_t step;
    double gamma;
    float norm;
};

View view_of(const fogzo_tensor& t) { return {t.rows, t.cols, t.scale, t.scale_rows, t.scale_cols}; }

Draw draw_of(const fogzo_tensor& t, const Shared& s) {
    return {t.surrogate, s.noise, s.seed, s.step, t.tensor, s.table, t.offset, t.row_pitch};
}

int check(const fogzo_tensor& t, const Shared& s) {
    const View view = view_of(t);
    int status = check_view(view, 1);
    if (status == FOGZO_OK) {
        status = check_draw(draw_of(t, s), t.rows, t.cols, s.first_probe, s.probes);
    }
    if (status != FOGZO_OK) {
        return status;
    }
    if (!is_gamma(s.gamma)) {
        return FOGZO_BAD_GAMMA;
    }
    const bool complete = t.grad != nullptr && s.differences != nullptr && t.out != nullptr;
    return view.size() > 0 && !complete ? FOGZO_NULL_POINTER : FOGZO_OK;
}

void assemble(const fogzo_tensor& t, const Shared& s, int threads) {
    const View view = view_of(t);
    const Draw draw = draw_of(t, s);
    const Mixture mixture = make_mixture(t.surrogate, s.noise, s.gamma);
    const Walk walk = make_walk(view, t.row_pitch == t.cols);
    const PerturbKernels& kernel = *kernels().perturb;
    float* out = static_cast<float*>(t.out);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        ProbeSources sources(draw, mixture.across, s.first_probe);
        float room[kBlock + kSlack] = {};
        float sum[kBlock];
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            for (int64_t p = 0; p < s.probes; ++p) {
                const float* noise = sources.of(p).at(draw.number(block.row, block.col), block.n, room);
                const float along = alignment(mixture, sources.sign(p), s.norm);
                each_scale(view, block, [&](int i, int count, float a) {
                    const float* g = t.grad + block.first + i;
                    const Run run = {g, g, noise + i, count, 1.0f, whitening(a, mixture.e), along};
                    kernel.accumulate(run, s.differences[p], p == 0, sum + i);
                });
            }
            each_scale(view, block, [&](int i, int count, float a) {
                const float factor = gain(static_cast<float>(s.probes), mixture.e, a);
                kernel.scaled(sum + i, count, factor, out + block.first + i);
            });
        }
    });
}

}  // namespace

extern "C" int fogzo_cpu_assemble_gradient_many(const fogzo_tensor* tensors, int64_t count, const float* differences,
                                                const float* table, int noise, int64_t probes, int64_t first_probe,
                                                uint64_t seed, int64_t step, double gamma, float norm, int threads) {
    if (count < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (count > 0 && tensors == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Shared shared = {differences, table, noise, probes, first_probe, seed, step, gamma, norm};
    for (int64_t t = 0; t < count; ++t) {
        const int status = check(tensors[t], shared);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    for (int64_t t = 0; t < count; ++t) {
        if (view_of(tensors[t]).size() > 0) {
            assemble(tensors[t], shared, threads);
        }
    }
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_assemble_gradient(const float* grad, const float* scale, const float* differences, float* out,
                                           const float* table, int64_t rows, int64_t cols, int64_t scale_rows,
                                           int64_t scale_cols, int64_t offset, int64_t row_pitch, int surrogate,
                                           int noise, int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                                           int64_t tensor, double gamma, float norm, int threads) {
    const fogzo_tensor one = {nullptr,    grad,   scale,     out,    nullptr, rows, cols,     scale_rows,
                              scale_cols, offset, row_pitch, tensor, 0,       0,    surrogate};
    return fogzo_cpu_assemble_gradient_many(&one, 1, differences, table, noise, probes, first_probe, seed, step, gamma,
                                            norm, threads);
}
