// probe_matmul on the CPU: packing x, the order of blocks, threads.
#include <atomic>

#include "fogzo/cpu.h"
#include "probe_matmul_tasks.h"

namespace fogzo {
namespace {

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

void prepare_x(const MatmulCall& c, int64_t row) {
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

void multiply(const MatmulCall& c) {
    make_runs(c.z, c.w.runs);
    if (c.z.x_type != kFloat32) {
        each_index(c.z.x_sides * c.z.rows, c.z.threads, [&](int64_t row, int) { prepare_x(c, row); });
    }
    const int64_t height = c.z.x_type == kInt8 ? kInt8Rows : kFloatRows;
    const int64_t bands = (c.z.rows + height - 1) / height;
    const int64_t panels = (c.z.weight.rows + kPanel - 1) / kPanel;
    const int64_t parts = (panels + kTaskPanels - 1) / kTaskPanels;
    each_index(c.z.sides() * bands * parts, c.z.threads, [&](int64_t i, int thread) {
        MatmulTask t = {};
        t.side = i / (bands * parts);
        t.m0 = i / parts % bands * height;
        t.m1 = t.m0 + height < c.z.rows ? t.m0 + height : c.z.rows;
        t.first_panel = i % parts * kTaskPanels;
        t.last_panel = t.first_panel + kTaskPanels < panels ? t.first_panel + kTaskPanels : panels;
        multiply_task(c, t, make_scratch(c.z, c.w.scratch + static_cast<uintptr_t>(thread * c.w.scratch_bytes)));
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
    if (check_sizes(z) != FOGZO_OK || scale_cols < 1 || scale_cols > cols) {
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
        return FOGZO_BAD_WORKSPACE;
    }
    const uintptr_t base = (reinterpret_cast<uintptr_t>(workspace) + 63) & ~uintptr_t(63);
    multiply({z, x, x_scale, codes, bias, y, grid, make_workspace(z, base), matmul});
    return FOGZO_OK;
}
