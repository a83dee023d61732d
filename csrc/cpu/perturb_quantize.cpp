#include "fogzo/cpu.h"
#include "fogzo/grid.h"
#include "fogzo/pack.h"
#include "source.h"
#include "view.h"

using namespace fogzo;

namespace {

enum Form : int { kValues = 0, kCodes = 1, kPacked = 2, kForms = 3 };
constexpr int kNoGrid = 4;  // in place of a grid: nothing is rounded, form must be values

// Room for what is made of one block.
struct Bins {
    float noise[kBlock + kSlack];
    uint8_t base[kBlock + kSlack];  // codes without perturbation
    uint8_t codes[2][kBlock + kSlack];
};

struct Job {
    View view;
    Draw draw;
    Grid grid;
    Mixture mixture;
    const float* w;
    const float* grad;
    void* out;
    int64_t* flip_count;
    int form;
    int sides;
    int64_t probes;
    int64_t first_probe;
    float norm;

    Run run_of(const Block& block, int i, int count, float a, const float* noise, float along) const {
        const int64_t at = block.first + i;
        return {w + at, grad + at, noise + i, count, 1.0f / a, whitening(a, mixture.e), along};
    }

    void quantize_base(const Block& block, uint8_t* base) const {
        const CodeKernels& kernel = *kernels().code;
        each_scale(view, block, [&](int i, int count, float a) {
            kernel.quantize(w + block.first + i, count, 1.0f / a, grid, base + i);
        });
    }

    void move(const Block& block, const float* noise, float along, int64_t side) const {
        const PerturbKernels& kernel = *kernels().perturb;
        float* plus = static_cast<float*>(out) + side * view.size() + block.first;
        each_scale(view, block, [&](int i, int count, float a) {
            const Run run = run_of(block, i, count, a, noise, along);
            kernel.moved(run, a, plus + i, sides == 2 ? plus + view.size() + i : nullptr);
        });
    }

    void round(const Block& block, const float* noise, float along, Bins& bins) const {
        const PerturbKernels& kernel = *kernels().perturb;
        each_scale(view, block, [&](int i, int count, float a) {
            const Run run = run_of(block, i, count, a, noise, along);
            kernel.codes(run, grid, bins.codes[0] + i, sides == 2 ? bins.codes[1] + i : nullptr);
        });
    }

    void store(const Block& block, const uint8_t* codes, int64_t side) const {
        const CodeKernels& kernel = *kernels().code;
        const int64_t at = side * view.size() + block.first;
        if (form == kCodes) {
            std::memcpy(static_cast<uint8_t*>(out) + at, codes, static_cast<size_t>(block.n));
        } else if (form == kValues) {
            float* values = static_cast<float*>(out) + at;
            each_scale(view, block,
                       [&](int i, int count, float a) { kernel.values(codes + i, count, a, grid, values + i); });
        } else {
            const int64_t pitch = packed_bytes(view.cols, grid.storage_bits);
            uint8_t* bytes = static_cast<uint8_t*>(out) + (side * view.rows + block.row) * pitch;
            kernel.pack(codes, block.n, grid.storage_bits, bytes + packed_bytes(block.col, grid.storage_bits));
        }
    }

    void run(const Walk& walk, int64_t first, int64_t last) const {
        ProbeSources sources(draw, mixture.across, first_probe);
        Bins bins = {};
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            if (flip_count != nullptr) {
                quantize_base(block, bins.base);
            }
            for (int64_t p = 0; p < probes; ++p) {
                const float* noise = sources.of(p).at(draw.number(block.row, block.col), block.n, bins.noise);
                const float along = alignment(mixture, sources.sign(p), norm);
                if (grid.kind == kNoGrid) {
                    move(block, noise, along, p * sides);
                    continue;
                }
                round(block, noise, along, bins);
                for (int s = 0; s < sides; ++s) {
                    const int64_t side = p * sides + s;
                    store(block, bins.codes[s], side);
                    if (flip_count != nullptr) {
                        const int64_t flips = kernels().code->differing(bins.codes[s], bins.base, block.n);
#pragma omp atomic
                        flip_count[side] += flips;
                    }
                }
            }
        }
    }
};

// What all tensors of a call share.
struct Shared {
    const float* table;
    int noise;
    int form;
    int sides;
    int64_t probes;
    int64_t first_probe;
    uint64_t seed;
    int64_t step;
    double gamma;
    float norm;
};

Job make_job(const fogzo_tensor& t, const Shared& s) {
    Grid grid = {};
    grid.kind = t.grid;
    return {{t.rows, t.cols, t.scale, t.scale_rows, t.scale_cols},
            {t.surrogate, s.noise, s.seed, s.step, t.tensor, s.table, t.offset, t.row_pitch},
            grid_exists(t.grid, t.bits) ? make_grid(t.grid, t.bits) : grid,
            make_mixture(t.surrogate, s.noise, is_gamma(s.gamma) ? s.gamma : 0.0),
            t.w,
            t.grad,
            t.out,
            t.flip_count,
            s.form,
            s.sides,
            s.probes,
            s.first_probe,
            s.norm};
}

int check_grid(const Job& job, int bits) {
    if (job.grid.kind == kNoGrid) {
        return job.form != kValues || job.flip_count != nullptr ? FOGZO_BAD_GRID : FOGZO_OK;
    }
    if (!grid_exists(job.grid.kind, bits)) {
        return FOGZO_BAD_GRID;
    }
    if (!surrogate_fits(job.grid.kind, job.draw.surrogate, job.draw.noise)) {
        return FOGZO_BAD_PAIR;
    }
    return job.form < 0 || job.form >= kForms ? FOGZO_BAD_FORM : FOGZO_OK;
}

int check(const Job& job, int bits, double gamma) {
    const int64_t most = INT64_MAX / 4;
    int status = check_draw(job.draw, job.view.rows, job.view.cols, job.first_probe, job.probes);
    if (status != FOGZO_OK) {
        return status;
    }
    if (job.sides != 1 && job.sides != 2) {
        return FOGZO_BAD_SIDES;
    }
    status = check_view(job.view, job.probes > most ? most : job.probes * job.sides);
    if (status == FOGZO_OK) {
        status = check_grid(job, bits);
    }
    if (status != FOGZO_OK) {
        return status;
    }
    if (!is_gamma(gamma)) {
        return FOGZO_BAD_GAMMA;
    }
    const bool complete = job.w != nullptr && job.grad != nullptr && job.out != nullptr;
    return job.view.size() > 0 && !complete ? FOGZO_NULL_POINTER : FOGZO_OK;
}

void perturb(const Job& job, int threads) {
    if (job.flip_count != nullptr) {
        std::memset(job.flip_count, 0, sizeof(int64_t) * static_cast<size_t>(job.probes * job.sides));
    }
    // Rows that end inside a byte must be packed one by one.
    const bool whole_bytes = job.form != kPacked || job.view.cols * job.grid.storage_bits % 8 == 0;
    const Walk walk = make_walk(job.view, job.draw.row_pitch == job.view.cols && whole_bytes);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) { job.run(walk, first, last); });
}

}  // namespace

extern "C" int fogzo_cpu_perturb_quantize_many(const fogzo_tensor* tensors, int64_t count, const float* table,
                                               int noise, int form, int sides, int64_t probes, int64_t first_probe,
                                               uint64_t seed, int64_t step, double gamma, float norm, int threads) {
    if (count < 0) {
        return FOGZO_BAD_SIZE;
    }
    if (count > 0 && tensors == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Shared shared = {table, noise, form, sides, probes, first_probe, seed, step, gamma, norm};
    for (int64_t t = 0; t < count; ++t) {
        const int status = check(make_job(tensors[t], shared), tensors[t].bits, gamma);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    for (int64_t t = 0; t < count; ++t) {
        const Job job = make_job(tensors[t], shared);
        if (job.view.size() > 0 || job.flip_count != nullptr) {
            perturb(job, threads);
        }
    }
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_perturb_quantize(const float* w, const float* grad, const float* scale, void* out,
                                          int64_t* flip_count, const float* table, int64_t rows, int64_t cols,
                                          int64_t scale_rows, int64_t scale_cols, int64_t offset, int64_t row_pitch,
                                          int grid, int bits, int surrogate, int noise, int form, int sides,
                                          int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                                          int64_t tensor, double gamma, float norm, int threads) {
    const fogzo_tensor one = {w,          grad,   scale,     out,    flip_count, rows, cols,     scale_rows,
                              scale_cols, offset, row_pitch, tensor, grid,       bits, surrogate};
    return fogzo_cpu_perturb_quantize_many(&one, 1, table, noise, form, sides, probes, first_probe, seed, step, gamma,
                                           norm, threads);
}
