// probe_matmul on the CPU: packing x, the order of blocks, threads.
#include <atomic>
#include <cstring>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "probe_matmul_plan.h"

namespace fogzo {
namespace {

float from_bfloat16(uint16_t x) {
    const uint32_t bits = static_cast<uint32_t>(x) << 16;
    float result;
    std::memcpy(&result, &bits, 4);
    return result;
}

// Half to even; NaN stays NaN.
uint16_t to_bfloat16(float x) {
    uint32_t bits;
    std::memcpy(&bits, &x, 4);
    if (x != x) {
        return static_cast<uint16_t>((bits >> 16) | 0x40);
    }
    return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

struct Call {
    Sizes z;
    const void* x;
    const float* x_scale;
    const uint8_t* codes;
    const float* bias;
    void* y;
    Grid grid;
    Workspace w;
    const MatmulKernels& kernels;
};

// 2 value = twice_step * code + twice_low, in the arithmetic of 32 bits that wraps.
uint32_t twice_step(const Grid& grid) { return static_cast<uint32_t>(2.0f * grid.step); }
uint32_t twice_low(const Grid& grid) { return static_cast<uint32_t>(static_cast<int32_t>(2.0f * grid.v_min)); }

uint8_t code_mask(const Grid& grid) {
    int mask = 1;
    while (mask + 1 < grid.levels) {
        mask = 2 * mask + 1;
    }
    return static_cast<uint8_t>(mask);
}

// Of codes too large for Form::kCodes, one a byte. Sums of four are three tenths faster where they suffice.
Form wide_form(const Sizes& z, const uint8_t* codes, uint8_t mask, const MatmulKernels& matmul) {
    if (4 * middle_of(mask) <= 128) {
        return Form::kFours;
    }
    if (z.rows < kRowsWorthReading) {
        return Form::kPairs;
    }
    std::atomic<bool> fit{true};
    each_index(z.code_sides * z.weight.rows * z.weight.scale_cols, z.threads, [&](int64_t i, int) {
        if (fit.load(std::memory_order_relaxed) && !matmul.fours_fit(codes + i * z.group(), z.group(), mask)) {
            fit.store(false, std::memory_order_relaxed);
        }
    });
    return fit ? Form::kFours : Form::kPairs;
}

void prepare_x(const Call& c, int64_t row) {
    const int64_t k = c.z.weight.cols;
    if (c.z.x_type == kBfloat16) {
        const uint16_t* from = static_cast<const uint16_t*>(c.x) + row * k;
        for (int64_t i = 0; i < k; ++i) {
            c.w.x[row * k + i] = from_bfloat16(from[i]);
        }
    } else if (c.z.x_type == kInt8) {
        const int bytes = number_bytes(c.z.form);
        uint32_t low = twice_low(c.grid);
        if (c.z.form == Form::kFours) {
            low += twice_step(c.grid) * static_cast<uint32_t>(middle_of(code_mask(c.grid)));
        }
        uint32_t sum = 0;
        uint32_t pairs = 0;
        for (int64_t i = 0; i < c.z.runs(); ++i) {
            const Stretch& run = c.w.runs[i];
            int8_t* to = c.w.packed + row * c.w.pitch + run.step * 4 * bytes;
            const XSums sums =
                c.kernels.pack_int8(static_cast<const int8_t*>(c.x) + row * k, run, c.z.bits, c.z.form, to);
            sum += static_cast<uint32_t>(sums.x);
            pairs += static_cast<uint32_t>(sums.pairs);
            c.w.x_shifts[row * c.z.runs() + i] = static_cast<int32_t>(low * sum - twice_step(c.grid) * pairs);
            sum = run.closes ? 0 : sum;
            pairs = run.closes ? 0 : pairs;
        }
    }
}

// Rows m0 .. m1 - 1 against panels first_panel .. last_panel - 1 of one side.
struct Task {
    int64_t side;
    int64_t m0;
    int64_t m1;
    int64_t first_panel;
    int64_t last_panel;
};

CodeRows code_rows(const Call& c, int64_t side, int64_t n0) {
    CodeRows rows = {};
    rows.bits = c.z.bits;
    const int64_t first = (c.z.code_sides > 1 ? side : 0) * c.z.weight.rows;
    for (int i = 0; i < kPanel; ++i) {
        const int64_t n = n0 + i < c.z.weight.rows ? n0 + i : c.z.weight.rows - 1;
        rows.row[i] = c.codes + (first + n) * c.z.row_bytes();
    }
    return rows;
}

// For the next panel: behind many rows of x its codes have left the first caches.
void prefetch(const Call& c, const CodeRows& rows) {
    for (const uint8_t* row : rows.row) {
        for (int64_t at = 0; at < c.z.row_bytes(); at += 64) {
            __builtin_prefetch(row + at, 0, 2);
        }
    }
}

void fill_scales(const Call& c, int64_t n0, float factor, const Scratch& s) {
    const View& v = c.z.weight;
    for (int i = 0; i < kPanel; ++i) {
        const int64_t n = n0 + i < v.rows ? n0 + i : v.rows - 1;
        s.bias[i] = c.bias != nullptr ? c.bias[n] : 0.0f;
        for (int64_t g = 0; g < v.scale_cols; ++g) {
            s.scales[g * kPanel + i] = factor * v.scale[(v.scale_rows > 1 ? n : 0) * v.scale_cols + g];
        }
    }
}

void int8_task(const Call& c, const Task& t, const Scratch& s) {
    const int64_t n_all = c.z.weight.rows;
    const int mask = code_mask(c.grid) & ((1 << c.z.bits) - 1);
    const int64_t x_row = (c.z.x_sides > 1 ? t.side : 0) * c.z.rows + t.m0;
    Int8Tile tile = {};
    tile.x = c.w.packed + x_row * c.w.pitch;
    tile.x_pitch = c.w.pitch;
    tile.x_shifts = c.w.x_shifts + x_row * c.z.runs();
    tile.x_scale = c.x_scale + x_row;
    tile.panel = s.codes;
    tile.form = c.z.form;
    tile.surplus = s.surplus;
    tile.narrow_steps = 32767 / (2 * 128 * mask) / 4 * 4;
    tile.runs = c.w.runs;
    tile.run_count = c.z.runs();
    tile.scales = s.scales;
    tile.bias = s.bias;
    tile.twice_step = static_cast<int32_t>(twice_step(c.grid));
    tile.sums = s.sums;
    tile.totals = s.totals;
    tile.y_pitch = n_all;
    for (int64_t panel = t.first_panel; panel < t.last_panel; ++panel) {
        const int64_t n0 = panel * kPanel;
        const CodeRows rows = code_rows(c, t.side, n0);
        fill_scales(c, n0, 0.5f, s);
        tile.valid = static_cast<int>(n_all - n0 < kPanel ? n_all - n0 : kPanel);
        tile.y = static_cast<float*>(c.y) + (t.side * c.z.rows + t.m0) * n_all + n0;
        tile.last_run = 0;
        while (tile.last_run < tile.run_count) {
            tile.first_run = tile.last_run;
            const int64_t begin = c.w.runs[tile.first_run].step;
            const int64_t most = panel_steps(c.z);
            while (tile.last_run < tile.run_count) {
                const Stretch& run = c.w.runs[tile.last_run];
                const int64_t at = run.step - begin;
                if (at + run.steps > most) {
                    break;
                }
                c.kernels.int8_panel(rows, run, static_cast<uint8_t>(mask), c.z.form,
                                     s.codes + at * 4 * kPanel * number_bytes(c.z.form),
                                     s.surplus + tile.last_run * kPanel);
                ++tile.last_run;
            }
            if (tile.last_run == tile.run_count && panel + 1 < t.last_panel && t.m1 - t.m0 >= 64) {
                prefetch(c, code_rows(c, t.side, n0 + kPanel));
            }
            c.kernels.int8_tile(tile, 0, t.m1 - t.m0);
        }
    }
}

void float_task(const Call& c, const Task& t, const Scratch& s) {
    const int64_t n_all = c.z.weight.rows;
    const int64_t k_all = c.z.weight.cols;
    const float* x = c.z.x_type == kBfloat16 ? c.w.x : static_cast<const float*>(c.x);
    float* y = c.z.x_type == kBfloat16 ? c.w.y : static_cast<float*>(c.y);
    const int64_t x_row = (c.z.x_sides > 1 ? t.side : 0) * c.z.rows + t.m0;
    const int64_t y_row = t.side * c.z.rows + t.m0;
    FloatTile tile = {};
    tile.x_pitch = k_all;
    tile.panel = s.values;
    tile.bias = s.bias;
    tile.y_pitch = n_all;
    int64_t last = 0;
    for (int64_t first = 0; first < c.z.runs(); first = last) {
        const int64_t k0 = c.w.runs[first].first;
        while (last < c.z.runs() && c.w.runs[last].first + c.w.runs[last].count - k0 <= kFloatCodes) {
            ++last;
        }
        const Stretch& end = c.w.runs[last - 1];
        tile.x = x + x_row * k_all + k0;
        tile.count = end.first + end.count - k0;
        tile.first = first == 0;
        for (int64_t panel = t.first_panel; panel < t.last_panel; ++panel) {
            const int64_t n0 = panel * kPanel;
            const CodeRows rows = code_rows(c, t.side, n0);
            fill_scales(c, n0, 1.0f, s);
            for (int64_t i = first; i < last; ++i) {
                const Stretch& run = c.w.runs[i];
                c.kernels.float_panel(rows, run, code_mask(c.grid), s.scales + run.group * kPanel, c.grid.step,
                                      c.grid.v_min, s.values + (run.first - k0) * kPanel);
            }
            tile.valid = static_cast<int>(n_all - n0 < kPanel ? n_all - n0 : kPanel);
            tile.y = y + y_row * n_all + n0;
            c.kernels.float_tile(tile, 0, t.m1 - t.m0);
        }
    }
    if (c.z.x_type != kBfloat16) {
        return;
    }
    const int64_t n1 = t.last_panel * kPanel < n_all ? t.last_panel * kPanel : n_all;
    for (int64_t row = y_row; row < y_row + t.m1 - t.m0; ++row) {
        for (int64_t n = t.first_panel * kPanel; n < n1; ++n) {
            static_cast<uint16_t*>(c.y)[row * n_all + n] = to_bfloat16(y[row * n_all + n]);
        }
    }
}

void multiply(const Call& c) {
    make_runs(c.z, c.w.runs);
    if (c.z.x_type != kFloat32) {
        each_index(c.z.x_sides * c.z.rows, c.z.threads, [&](int64_t row, int) { prepare_x(c, row); });
    }
    const int64_t height = c.z.x_type == kInt8 ? kInt8Rows : kFloatRows;
    const int64_t bands = (c.z.rows + height - 1) / height;
    const int64_t panels = (c.z.weight.rows + kPanel - 1) / kPanel;
    const int64_t parts = (panels + kTaskPanels - 1) / kTaskPanels;
    each_index(c.z.sides() * bands * parts, c.z.threads, [&](int64_t i, int thread) {
        Task t = {};
        t.side = i / (bands * parts);
        t.m0 = i / parts % bands * height;
        t.m1 = t.m0 + height < c.z.rows ? t.m0 + height : c.z.rows;
        t.first_panel = i % parts * kTaskPanels;
        t.last_panel = t.first_panel + kTaskPanels < panels ? t.first_panel + kTaskPanels : panels;
        const Scratch s = make_scratch(c.z, c.w.scratch + static_cast<uintptr_t>(thread * c.w.scratch_bytes));
        if (c.z.x_type == kInt8) {
            int8_task(c, t, s);
        } else {
            float_task(c, t, s);
        }
    });
}

}  // namespace
}  // namespace fogzo

using namespace fogzo;

extern "C" int64_t fogzo_cpu_probe_matmul_workspace(int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                                                    int64_t cols, int64_t scale_cols, int x_type, int stored_bits,
                                                    int threads) {
    const View weight = {out_cols, cols, nullptr, 1, scale_cols};
    // Whatever the grid and the instruction set, no more is needed than with two bytes a number.
    const Sizes z = make_sizes(x_sides, code_sides, rows, weight, x_type, stored_bits,
                               stored_bits == 8 ? Form::kPairs : Form::kCodes, threads);
    if (check_sizes(z) != FOGZO_OK || scale_cols < 1 || cols == 0) {
        return 0;
    }
    return make_workspace(z, 0).bytes + 63;
}

extern "C" int fogzo_cpu_probe_matmul(const void* x, const float* x_scale, const uint8_t* codes, const float* scale,
                                      const float* bias, void* y, void* workspace, int64_t workspace_bytes,
                                      int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols,
                                      int64_t scale_rows, int64_t scale_cols, int kind, int bits, int stored_bits,
                                      int x_type, int threads) {
    const View weight = {out_cols, cols, scale, scale_rows, scale_cols};
    Sizes z = make_sizes(x_sides, code_sides, rows, weight, x_type, stored_bits, Form::kCodes, threads);
    int status = check_sizes(z);
    if (status == FOGZO_OK) {
        status = check_view(weight, 1);
    }
    if (status != FOGZO_OK) {
        return status;
    }
    if (!grid_exists(kind, bits) || make_grid(kind, bits).levels > (1 << stored_bits)) {
        return FOGZO_BAD_GRID;
    }
    const int64_t outputs = z.sides() * rows * out_cols;
    if (outputs == 0 || z.x_sides == 0 || z.code_sides == 0) {
        return FOGZO_OK;
    }
    if (y == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (cols == 0) {
        for (int64_t i = 0; i < outputs; ++i) {
            const float value = bias != nullptr ? bias[i % out_cols] : 0.0f;
            if (x_type == kBfloat16) {
                static_cast<uint16_t*>(y)[i] = to_bfloat16(value);
            } else {
                static_cast<float*>(y)[i] = value;
            }
        }
        return FOGZO_OK;
    }
    if (x == nullptr || codes == nullptr || workspace == nullptr || (x_type == kInt8 && x_scale == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    const Grid grid = make_grid(kind, bits);
    const MatmulKernels& matmul = *kernels().matmul;
    if (x_type == kInt8 && code_mask(grid) > matmul.most_narrow_code) {
        z.form = wide_form(z, codes, code_mask(grid), matmul);
    }
    if (workspace_bytes < make_workspace(z, 0).bytes + 63) {
        return FOGZO_BAD_SIZE;
    }
    const uintptr_t base = (reinterpret_cast<uintptr_t>(workspace) + 63) & ~uintptr_t(63);
    multiply({z, x, x_scale, codes, bias, y, grid, make_workspace(z, base), matmul});
    return FOGZO_OK;
}
