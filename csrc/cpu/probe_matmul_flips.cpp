// probe_matmul of weights that differ from one base in a few codes: one dense matmul for all sides,
// then for each flip its column of x times the change of the weight.
#include <cstring>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul_plan.h"

namespace fogzo {
namespace {

// Above this share of flips the sides are multiplied one by one. With two sides of 512 x 768 x 768 and 2-bit
// codes both ways took equal time near these shares.
constexpr double kMostInt8 = 0.007;
constexpr double kMostFloat = 0.05;

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

struct Correction {
    const void* x;
    const float* x_scale;
    const uint8_t* base;
    float* y;
    int64_t x_sides;
    int64_t rows;
    View weight;
    Grid grid;
    int x_type;
};

// columns [K, kColumn]: rows m0 .. m0 + count - 1 of one side of x, transposed, zeros behind them.
template <class T> void transpose(const T* x, int64_t k_all, int count, float* columns) {
    constexpr int64_t block = 16;  // whose part of columns stays in the first cache
    for (int64_t k0 = 0; k0 < k_all; k0 += block) {
        const int64_t k1 = k0 + block < k_all ? k0 + block : k_all;
        for (int lane = 0; lane < kColumn; ++lane) {
            for (int64_t k = k0; k < k1; ++k) {
                columns[k * kColumn + lane] = lane < count ? static_cast<float>(x[lane * k_all + k]) : 0.0f;
            }
        }
    }
}

// y of one side, rows m0 .. m0 + count - 1: the flips of each row of W together.
void correct(const Correction& c, const Flipped& f, int64_t side, int64_t m0, int count, const float* columns,
             const MatmulKernels& kernels) {
    const int64_t n_all = c.weight.rows;
    const int64_t k_all = c.weight.cols;
    const int64_t group = k_all / c.weight.scale_cols;
    const int64_t* index = f.index + side * f.capacity;
    const uint8_t* code = f.code + side * f.capacity;
    const int64_t x_row = (c.x_sides > 1 ? side : 0) * c.rows + m0;
    float* y = c.y + (side * c.rows + m0) * n_all;
    for (int64_t i = 0; i < f.count[side];) {
        const int64_t n = index[i] / k_all;
        float sums[kColumn] = {};
        for (; i < f.count[side] && index[i] / k_all == n; ++i) {
            const int64_t k = index[i] % k_all;
            const float a = c.weight.scale[(c.weight.scale_rows > 1 ? n : 0) * c.weight.scale_cols + k / group];
            const int change = static_cast<int>(code[i]) - static_cast<int>(c.base[index[i]]);
            kernels.add_column(columns + k * kColumn, a * (c.grid.step * static_cast<float>(change)), sums);
        }
        for (int lane = 0; lane < count; ++lane) {
            y[lane * n_all + n] += c.x_type == kInt8 ? sums[lane] * c.x_scale[x_row + lane] : sums[lane];
        }
    }
}

void sparse(const Correction& c, const Flipped& f, float* columns, int threads) {
    const int64_t blocks = (c.rows + kColumn - 1) / kColumn;
    each_index(c.x_sides * blocks, threads, [&](int64_t task, int thread) {
        const int64_t x_side = task / blocks;
        const int64_t m0 = task % blocks * kColumn;
        const int count = static_cast<int>(c.rows - m0 < kColumn ? c.rows - m0 : kColumn);
        float* own = columns + thread * c.weight.cols * kColumn;
        const int64_t from = (x_side * c.rows + m0) * c.weight.cols;
        if (c.x_type == kInt8) {
            transpose(static_cast<const int8_t*>(c.x) + from, c.weight.cols, count, own);
        } else {
            transpose(static_cast<const float*>(c.x) + from, c.weight.cols, count, own);
        }
        const int64_t first = c.x_sides > 1 ? x_side : 0;
        const int64_t last = c.x_sides > 1 ? x_side + 1 : f.sides;
        for (int64_t side = first; side < last; ++side) {
            correct(c, f, side, m0, count, own, *kernels().matmul);
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
    const double most =
        (x_type == kInt8 ? kMostInt8 : kMostFloat) * static_cast<double>(sides) * static_cast<double>(size);
    if (needed == 0 || static_cast<double>(total) <= most) {
        const int done = dense(x, x_scale, base, y, x_sides);
        const int64_t outputs = rows * out_cols;
        for (int64_t s = x_sides; done == FOGZO_OK && outputs > 0 && s < sides; ++s) {
            std::memcpy(y + s * outputs, y, static_cast<size_t>(outputs) * sizeof(float));
        }
        if (done != FOGZO_OK || needed == 0 || rows == 0 || size == 0) {
            return done;
        }
        const uintptr_t at =
            (reinterpret_cast<uintptr_t>(workspace) + static_cast<uintptr_t>(own) + 63) & ~uintptr_t(63);
        sparse({x, x_scale, base, y, x_sides, rows, weight, make_grid(kind, bits), x_type}, flips,
               reinterpret_cast<float*>(at), threads);
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
