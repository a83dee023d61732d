// Tasks of probe_matmul on the CPU: panels of codes, and the tiles of y that meet them.
#include "probe_matmul_tasks.h"

namespace fogzo {
namespace {

CodeRows code_rows(const MatmulCall& c, int64_t side, int64_t n0) {
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
void prefetch(const MatmulCall& c, const CodeRows& rows) {
    for (const uint8_t* row : rows.row) {
        for (int64_t at = 0; at < c.z.row_bytes(); at += 64) {
            __builtin_prefetch(row + at, 0, 2);
        }
    }
}

// Of groups first .. last - 1.
void fill_scales(const MatmulCall& c, int64_t n0, float factor, int64_t first, int64_t last, const Scratch& s) {
    const View& v = c.z.weight;
    for (int i = 0; i < kPanel; ++i) {
        const int64_t n = n0 + i < v.rows ? n0 + i : v.rows - 1;
        s.bias[i] = c.bias != nullptr ? c.bias[n] : 0.0f;
        for (int64_t g = first; g < last; ++g) {
            s.scales[g * kPanel + i] = factor * v.scale[(v.scale_rows > 1 ? n : 0) * v.scale_cols + g];
        }
    }
}

void int8_task(const MatmulCall& c, const MatmulTask& t, const Scratch& s) {
    const int64_t n_all = c.z.weight.rows;
    const int mask = code_mask(c.grid);
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
        fill_scales(c, n0, 0.5f, 0, c.z.weight.scale_cols, s);
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

// Whether a panel is worth its sums along k, which few k do not pay for, and its runs begin at eights.
bool is_thin(const MatmulCall& c, int valid) {
    const View& v = c.z.weight;
    return valid <= c.kernels.most_thin && v.cols >= kThinK && (v.scale_cols == 1 || c.z.group() % 8 == 0);
}

void float_task(const MatmulCall& c, const MatmulTask& t, const Scratch& s) {
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
            fill_scales(c, n0, 1.0f, c.w.runs[first].group, end.group + 1, s);
            tile.valid = static_cast<int>(n_all - n0 < kPanel ? n_all - n0 : kPanel);
            tile.y = y + y_row * n_all + n0;
            const bool thin = is_thin(c, tile.valid);
            for (int64_t i = first; i < last; ++i) {
                const Stretch& run = c.w.runs[i];
                const float* scales = s.scales + run.group * kPanel;
                float* to = s.values + (run.first - k0) * kPanel;
                if (thin) {
                    c.kernels.thin_panel(rows, tile.valid, run, code_mask(c.grid), scales, c.grid.step, c.grid.v_min,
                                         to);
                } else {
                    c.kernels.float_panel(rows, run, code_mask(c.grid), scales, c.grid.step, c.grid.v_min, to);
                }
            }
            (thin ? c.kernels.thin_tile : c.kernels.float_tile)(tile, 0, t.m1 - t.m0);
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

}  // namespace

void multiply_task(const MatmulCall& call, const MatmulTask& task, const Scratch& scratch) {
    if (call.z.x_type == kInt8) {
        int8_task(call, task, scratch);
    } else {
        float_task(call, task, scratch);
    }
}

}  // namespace fogzo
