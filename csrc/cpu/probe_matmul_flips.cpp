// probe_matmul of weights that differ from one base in a few codes: one dense matmul for all sides,
// then for each flip its column of x times the change of the weight.
#include <cstring>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul_tasks.h"

namespace fogzo {
namespace {

// One product for all sides and corrections, or a product a side? Both were timed over 8 to 2048 rows of x, 2 and 8
// sides, 2 and 8 bits and shares of flips from 1e-4 to 0.2 (docs/benchmarking.md); all costs are in lanes: what one
// multiplication and addition of a column of x takes, 0.04 ns on a Zen 5 core.
constexpr double kStart = 96;     // finding a flip's column, for each block of rows
constexpr double kHeldRow = 7;    // flips: adding the sums of a row of W to y
constexpr double kMoved = 7;      // transposing a number of x, copying one of y
constexpr double kCodeRows = 12;  // rows of x: copying and unpacking a code
constexpr int kHeld = 16;         // rows of W whose y is updated together

struct Flipped {
    const int64_t* index;  // [sides, capacity]
    const uint8_t* code;
    const int64_t* count;  // [sides]
    int64_t capacity;
    int64_t sides;
};

int check_flips(const Flipped& f, int64_t size, int64_t* total) {
    *total = 0;
    if (f.sides < 0 || f.capacity < 0) {
        return FOGZO_BAD_SIZE;
    }
    if ((f.sides > 0 && f.count == nullptr) ||
        (f.sides > 0 && f.capacity > 0 && (f.index == nullptr || f.code == nullptr))) {
        return FOGZO_NULL_POINTER;
    }
    for (int64_t s = 0; s < f.sides; ++s) {
        if (f.count[s] < 0 || f.count[s] > f.capacity) {
            return FOGZO_BAD_SIZE;
        }
        int64_t before = -1;
        for (int64_t i = 0; i < f.count[s]; ++i) {
            const int64_t at = f.index[s * f.capacity + i];
            if (at <= before || at >= size) {
                return FOGZO_BAD_INDEX;
            }
            before = at;
        }
        *total += f.count[s];
    }
    return FOGZO_OK;
}

// Whether one product of the base's codes and corrections take less than a product of each side's codes.
bool corrected(int64_t total, int64_t x_sides, int64_t sides, int64_t rows, const View& weight, const Grid& grid,
               int x_type) {
    if (total == 0 || x_sides == sides) {
        return total == 0;
    }
    const MatmulKernels& matmul = *kernels().matmul;
    const double* costs = matmul.product_cost;
    const double product = x_type != kInt8 ? costs[2] : costs[code_mask(grid) > matmul.most_narrow_code ? 1 : 0];
    const double more = static_cast<double>(sides - 1);
    const double m = static_cast<double>(rows);
    const double n = static_cast<double>(weight.rows);
    const double k = static_cast<double>(weight.cols);
    const double flips = static_cast<double>(total);
    const double held = flips < (more + 1) * n ? flips : (more + 1) * n;
    const double blocks = static_cast<double>((rows + kColumn - 1) / kColumn);
    const double lanes = static_cast<double>((rows + 7) / 8 * 8) + kStart * blocks;
    const double corrections = (flips + kHeldRow * held) * lanes + kMoved * m * (k + more * n);
    return corrections <= more * n * k * (m + kCodeRows) * product;
}

struct Correction {
    const void* x;  // [rows, K], of all sides
    const float* x_scale;
    const uint8_t* base;
    float* y;
    int64_t rows;
    View weight;
    Grid grid;
    int x_type;
};

// columns [K, width]: count rows of x, transposed, zeros behind them.
template <class T> void transpose(const T* x, int64_t k_all, int count, int width, float* columns) {
    constexpr int64_t block = 16;  // whose part of columns stays in the first cache
    for (int64_t k0 = 0; k0 < k_all; k0 += block) {
        const int64_t k1 = k0 + block < k_all ? k0 + block : k_all;
        for (int lane = 0; lane < width; ++lane) {
            for (int64_t k = k0; k < k1; ++k) {
                columns[k * width + lane] = lane < count ? static_cast<float>(x[lane * k_all + k]) : 0.0f;
            }
        }
    }
}

// Sums of a few rows of W: their y is updated together, as it lies in the same lines of the cache.
struct Held {
    float sums[kHeld][kColumn];
    int64_t n[kHeld];
    int rows;
};

// y [count, n_all]: the rows of W that are held added to it; by: of each row of x, or null.
void add_held(const Held& held, int64_t n_all, int count, const float* by, float* y) {
    for (int lane = 0; lane < count; ++lane) {
        const float factor = by != nullptr ? by[lane] : 1.0f;
        for (int i = 0; i < held.rows; ++i) {
            y[lane * n_all + held.n[i]] += held.sums[i][lane] * factor;
        }
    }
}

// y of one side, rows m0 .. m0 + count - 1: the flips of each row of W together.
void correct(const Correction& c, const Flipped& f, int64_t side, int64_t m0, int count, int width,
             const float* columns, const MatmulKernels& kernels) {
    const int64_t n_all = c.weight.rows;
    const int64_t k_all = c.weight.cols;
    const int64_t group = k_all / c.weight.scale_cols;
    const int64_t* index = f.index + side * f.capacity;
    const uint8_t* code = f.code + side * f.capacity;
    const float* by = c.x_type == kInt8 ? c.x_scale + m0 : nullptr;
    float* y = c.y + (side * c.rows + m0) * n_all;
    Held held;
    held.rows = 0;
    for (int64_t i = 0; i < f.count[side];) {
        const int64_t n = index[i] / k_all;
        const int64_t first = n * k_all;
        const float* scales = c.weight.scale + (c.weight.scale_rows > 1 ? n : 0) * c.weight.scale_cols;
        float* sums = held.sums[held.rows];
        std::memset(sums, 0, sizeof held.sums[0]);
        for (; i < f.count[side] && index[i] - first < k_all; ++i) {
            const int64_t k = index[i] - first;
            const float a = scales[k / group];
            const int change = static_cast<int>(code[i]) - static_cast<int>(c.base[index[i]]);
            kernels.add_column(columns + k * width, a * (c.grid.step * static_cast<float>(change)), width, sums);
        }
        held.n[held.rows] = n;
        if (++held.rows == kHeld || i == f.count[side]) {
            add_held(held, n_all, count, by, y);
            held.rows = 0;
        }
    }
}

// y of all sides, of which only the first is made yet: it is copied to the others, block by block, and its own flips
// are added last.
void correct_sides(const Correction& c, const Flipped& f, float* columns, int threads) {
    const int64_t n_all = c.weight.rows;
    const int64_t k_all = c.weight.cols;
    each_index((c.rows + kColumn - 1) / kColumn, threads, [&](int64_t block, int thread) {
        const int64_t m0 = block * kColumn;
        const int count = static_cast<int>(c.rows - m0 < kColumn ? c.rows - m0 : kColumn);
        const int width = (count + 7) / 8 * 8;
        float* own = columns + thread * k_all * kColumn;
        if (c.x_type == kInt8) {
            transpose(static_cast<const int8_t*>(c.x) + m0 * k_all, k_all, count, width, own);
        } else {
            transpose(static_cast<const float*>(c.x) + m0 * k_all, k_all, count, width, own);
        }
        for (int64_t side = f.sides - 1; side >= 0; --side) {
            if (side > 0) {
                std::memcpy(c.y + (side * c.rows + m0) * n_all, c.y + m0 * n_all,
                            static_cast<size_t>(count * n_all) * 4);
            }
            if (f.count[side] > 0) {
                correct(c, f, side, m0, count, width, own, *kernels().matmul);
            }
        }
    });
}

int64_t columns_bytes(int64_t cols, int threads) { return cols * kColumn * 4 * threads + 63; }

}  // namespace
}  // namespace fogzo

using namespace fogzo;

extern "C" int64_t fogzo_cpu_probe_matmul_flips_workspace(int64_t x_sides, int64_t rows, int64_t out_cols, int64_t cols,
                                                          int64_t scale_cols, int x_type, int threads) {
    const int64_t dense =
        fogzo_cpu_probe_matmul_workspace(x_sides, 1, rows, out_cols, cols, scale_cols, x_type, 8, threads);
    if (dense == 0) {
        return 0;
    }
    return dense + out_cols * cols + columns_bytes(cols, thread_count(threads));
}

extern "C" int fogzo_cpu_probe_matmul_flips(const void* x, const float* x_scale, const uint8_t* base,
                                            const int64_t* index, const uint8_t* code, const int64_t* count,
                                            int64_t capacity, const float* scale, const float* bias, float* y,
                                            void* workspace, int64_t workspace_bytes, int64_t x_sides, int64_t sides,
                                            int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                                            int64_t scale_cols, int kind, int bits, int x_type, int threads) {
    const View weight = {out_cols, cols, scale, scale_rows, scale_cols};
    const Flipped flips = {index, code, count, capacity, sides};
    int64_t size = 0;
    int64_t total = 0;
    if (x_type != kFloat32 && x_type != kInt8) {
        return FOGZO_BAD_TYPE;
    }
    if (!grid_exists(kind, bits)) {
        return FOGZO_BAD_GRID;
    }
    if (out_cols < 0 || cols < 0 || rows < 0 || __builtin_mul_overflow(out_cols, cols, &size) ||
        (x_sides != 1 && x_sides != sides)) {
        return FOGZO_BAD_SIZE;
    }
    int64_t bytes = 0;
    if (__builtin_mul_overflow(sides, capacity, &bytes) || __builtin_mul_overflow(bytes, 8, &bytes) ||
        __builtin_mul_overflow(rows, out_cols, &bytes) || __builtin_mul_overflow(bytes, sides, &bytes) ||
        __builtin_mul_overflow(bytes, 4, &bytes)) {
        return FOGZO_BAD_SIZE;
    }
    const int status = check_flips(flips, size, &total);
    if (status != FOGZO_OK) {
        return status;
    }
    threads = thread_count(threads);
    const int64_t needed =
        fogzo_cpu_probe_matmul_flips_workspace(x_sides, rows, out_cols, cols, scale_cols, x_type, threads);
    if (needed > 0 && (workspace == nullptr || workspace_bytes < needed)) {
        return workspace == nullptr ? FOGZO_NULL_POINTER : FOGZO_BAD_WORKSPACE;
    }
    if (sides == 0) {
        return FOGZO_OK;
    }
    if (base == nullptr && size > 0) {
        return FOGZO_NULL_POINTER;
    }
    const int64_t own = needed > 0 ? needed - size - columns_bytes(cols, threads) : 0;
    const auto dense = [&](const void* rows_of_x, const float* scales_of_x, const uint8_t* codes, float* to,
                           int64_t count_of_x) {
        return fogzo_cpu_probe_matmul(rows_of_x, scales_of_x, codes, scale, bias, to, workspace, own, count_of_x, 1,
                                      rows, out_cols, cols, scale_rows, scale_cols, kind, bits, 8, x_type, threads);
    };
    const Grid grid = make_grid(kind, bits);
    if (needed == 0 || corrected(total, x_sides, sides, rows, weight, grid, x_type)) {
        const int done = dense(x, x_scale, base, y, x_sides);
        if (done != FOGZO_OK || sides == x_sides || rows * out_cols == 0) {
            return done;
        }
        const uintptr_t at =
            (reinterpret_cast<uintptr_t>(workspace) + static_cast<uintptr_t>(own) + 63) & ~uintptr_t(63);
        correct_sides({x, x_scale, base, y, rows, weight, grid, x_type}, flips, reinterpret_cast<float*>(at), threads);
        return FOGZO_OK;
    }
    uint8_t* codes = static_cast<uint8_t*>(workspace) + (needed - size);
    for (int64_t s = 0; s < sides; ++s) {
        std::memcpy(codes, base, static_cast<size_t>(size));
        for (int64_t i = 0; i < count[s]; ++i) {
            codes[index[s * capacity + i]] = code[s * capacity + i];
        }
        const int64_t first = x_sides > 1 ? s * rows : 0;
        const char* from = static_cast<const char*>(x) + first * cols * (x_type == kInt8 ? 1 : 4);
        const int done = dense(from, x_scale == nullptr ? nullptr : x_scale + first, codes, y + s * rows * out_cols, 1);
        if (done != FOGZO_OK) {
            return done;
        }
    }
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_probe_matmul_flips_corrected(int64_t total, int64_t x_sides, int64_t sides, int64_t rows,
                                                      int64_t out_cols, int64_t cols, int kind, int bits, int x_type) {
    const View weight = {out_cols, cols, nullptr, 1, 1};
    return grid_exists(kind, bits) && corrected(total, x_sides, sides, rows, weight, make_grid(kind, bits), x_type);
}
