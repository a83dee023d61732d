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
    if (status != FOGZO_OK) {
        return status;
    }
    if (job.grid.kind == kNoGrid) {
        if (job.form != kValues || job.flip_count != nullptr) {
            return FOGZO_BAD_GRID;
        }
        return is_gamma(gamma) ? FOGZO_OK : FOGZO_BAD_GAMMA;
    }
    if (!grid_exists(job.grid.kind, bits)) {
        return FOGZO_BAD_GRID;
    }
    if (!surrogate_fits(job.grid.kind, job.draw.surrogate, job.draw.noise)) {
        return FOGZO_BAD_PAIR;
    }
    if (job.form < 0 || job.form >= kForms) {
        return FOGZO_BAD_FORM;
    }
    return is_gamma(gamma) ? FOGZO_OK : FOGZO_BAD_GAMMA;
}

}  // namespace

extern "C" int fogzo_cpu_perturb_quantize(const float* w, const float* grad, const float* scale, void* out,
                                          int64_t* flip_count, const float* table, int64_t rows, int64_t cols,
                                          int64_t scale_rows, int64_t scale_cols, int64_t offset, int64_t row_pitch,
                                          int kind, int bits, int surrogate, int noise, int form, int sides,
                                          int64_t probes, int64_t first_probe, uint64_t seed, int64_t step,
                                          int64_t tensor, double gamma, float norm, int threads) {
    const bool grid_known = grid_exists(kind, bits);
    Grid grid = {};
    grid.kind = kind;
    const Job job = {{rows, cols, scale, scale_rows, scale_cols},
                     {surrogate, noise, seed, step, tensor, table, offset, row_pitch},
                     grid_known ? make_grid(kind, bits) : grid,
                     make_mixture(surrogate, noise, is_gamma(gamma) ? gamma : 0.0),
                     w,
                     grad,
                     out,
                     flip_count,
                     form,
                     sides,
                     probes,
                     first_probe,
                     norm};
    const int status = check(job, bits, gamma);
    if (status != FOGZO_OK) {
        return status;
    }
    if (job.view.size() > 0 && (w == nullptr || grad == nullptr || out == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    if (flip_count != nullptr) {
        std::memset(flip_count, 0, sizeof(int64_t) * static_cast<size_t>(probes * sides));
    }
    if (job.view.size() == 0) {
        return FOGZO_OK;
    }
    // Rows that end inside a byte must be packed one by one.
    const bool whole_bytes = form != kPacked || cols * job.grid.storage_bits % 8 == 0;
    const Walk walk = make_walk(job.view, row_pitch == cols && whole_bytes);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) { job.run(walk, first, last); });
    return FOGZO_OK;
}
