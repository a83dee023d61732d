#include "fogzo/cpu.h"
#include "fogzo/grid.h"
#include "fogzo/pack.h"
#include "source.h"
#include "view.h"

using namespace fogzo;

namespace {

enum Form : int { kValues = 0, kCodes = 1, kPacked = 2, kForms = 3 };

// One block of a weight in bins, and room for what is made of it.
struct Bins {
    float scale[kBlock];
    float x[kBlock];
    float whitened[kBlock];
    float d[kBlock];
    uint8_t base[kBlock];  // codes without perturbation
    uint8_t codes[kBlock];
};

template <int kind> void round_as(const float* x, const float* d, float direction, int n, Grid grid, uint8_t* codes) {
    grid.kind = kind;
    for (int i = 0; i < n; ++i) {
        codes[i] = static_cast<uint8_t>(code_of(grid, x[i] + direction * d[i]));
    }
}

// codes of x + direction * d; direction is +-1, so the product is exact.
void round_to(const float* x, const float* d, float direction, int n, const Grid& grid, uint8_t* codes) {
    if (grid.kind == kSign) {
        round_as<kSign>(x, d, direction, n, grid, codes);
    } else {
        round_as<kTernary>(x, d, direction, n, grid, codes);
    }
}

int64_t count_flips(const uint8_t* codes, const uint8_t* base, int n) {
    int count = 0;
    for (int i = 0; i < n; ++i) {
        count += codes[i] != base[i] ? 1 : 0;
    }
    return count;
}

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

    void load(const Block& block, Bins& bins) const {
        each_scale(view, block, [&](int i, int count, float a) {
            const float inverse = 1.0f / a;
            const float factor = whitening(a, mixture.e);
            for (int end = i + count; i < end; ++i) {
                bins.scale[i] = a;
                bins.x[i] = w[block.first + i] * inverse;
                bins.whitened[i] = grad[block.first + i] * factor;
            }
        });
        if (flip_count != nullptr) {
            for (int i = 0; i < block.n; ++i) {
                bins.base[i] = static_cast<uint8_t>(code_of(grid, bins.x[i]));
            }
        }
    }

    void store(const Block& block, const Bins& bins, int64_t side) const {
        const int64_t at = side * view.size() + block.first;
        if (form == kCodes) {
            std::memcpy(static_cast<uint8_t*>(out) + at, bins.codes, static_cast<size_t>(block.n));
        } else if (form == kValues) {
            float* values = static_cast<float*>(out) + at;
            for (int i = 0; i < block.n; ++i) {
                values[i] = bins.scale[i] * value_of(grid, bins.codes[i]);
            }
        } else {
            const int64_t pitch = packed_bytes(view.cols, grid.storage_bits);
            uint8_t* bytes = static_cast<uint8_t*>(out) + (side * view.rows + block.row) * pitch;
            pack_codes(bins.codes, block.n, grid.storage_bits, bytes + packed_bytes(block.col, grid.storage_bits));
        }
    }

    void run(const Walk& walk, int64_t first, int64_t last) const {
        ProbeSources sources(draw, first_probe);
        Bins bins;
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            load(block, bins);
            for (int64_t p = 0; p < probes; ++p) {
                sources.of(p).read(draw.number(block.row, block.col), block.n, bins.d);
                const float along = alignment(mixture, sources.sign(p), norm);
                for (int i = 0; i < block.n; ++i) {
                    bins.d[i] = perturbation(along, bins.whitened[i], mixture.across, bins.d[i]);
                }
                for (int s = 0; s < sides; ++s) {
                    const int64_t side = p * sides + s;
                    const float direction = s == 0 ? 1.0f : -1.0f;
                    round_to(bins.x, bins.d, direction, block.n, grid, bins.codes);
                    store(block, bins, side);
                    if (flip_count != nullptr) {
                        const int64_t flips = count_flips(bins.codes, bins.base, block.n);
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
