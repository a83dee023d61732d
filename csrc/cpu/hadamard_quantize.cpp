// A row is rotated twice, the second time from the cache: 128 elements at a time lie on the stack.
#include <cmath>
#include <cstring>

#include "fogzo/cpu.h"
#include "hadamard.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

constexpr int64_t kQuestBlock = 128;

struct Quest {
    const Kernels& kernel;
    Grid grid;
    int64_t cols;
    double multiple;

    // body(at, count, y): the rotated elements at .. at + count - 1 of a row.
    template <class Body> void each_block(const float* row, Body body) const {
        float y[kQuestBlock];
        for (int64_t at = 0; at < cols; at += kQuestBlock) {
            const int count = static_cast<int>(cols - at < kQuestBlock ? cols - at : kQuestBlock);
            std::memcpy(y, row + at, sizeof(float) * static_cast<size_t>(count));
            rotate_row(*kernel.hadamard, y, count, kQuestBlock);
            body(at, count, y);
        }
    }

    float scale_of(const float* row) const {
        double sum = 0.0;
        each_block(row, [&](int64_t, int count, const float* y) { sum += kernel.fake->square_sum(y, count, 1.0f); });
        const float a = static_cast<float>(multiple * std::sqrt(sum / static_cast<double>(cols)));
        return a < kSmallestScale ? kSmallestScale : a;  // NaN stays
    }

    void values(const float* row, float a, float* out) const {
        each_block(row,
                   [&](int64_t at, int count, const float* y) { kernel.fake->forward(y, out + at, count, a, grid); });
    }

    void codes(const float* row, float a, uint8_t* out) const {
        uint8_t room[kQuestBlock + kSlack];
        each_block(row, [&](int64_t at, int count, const float* y) {
            kernel.code->quantize(y, count, 1.0f / a, grid, room);
            std::memcpy(out + at, room, static_cast<size_t>(count));
        });
    }
};

}  // namespace

extern "C" int fogzo_cpu_hadamard_quantize(const float* w, float* values, uint8_t* codes, float* scale, int64_t rows,
                                           int64_t cols, double multiple, int grid, int bits, int threads) {
    const float one = 1.0f;
    const View view = {rows, cols, &one, 1, 1};
    const int status = check_view(view, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (!grid_exists(grid, bits)) {
        return FOGZO_BAD_GRID;
    }
    if (view.size() == 0) {
        return FOGZO_OK;
    }
    if (w == nullptr || scale == nullptr || (values == nullptr) == (codes == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    const Quest quest = {kernels(), make_grid(grid, bits), cols, multiple};
    each_range(rows, threads, [&](int64_t first, int64_t last) {
        for (int64_t r = first; r < last; ++r) {
            const float* row = w + r * cols;
            const float a = scale[r] = quest.scale_of(row);
            if (values != nullptr) {
                quest.values(row, a, values + r * cols);
            } else {
                quest.codes(row, a, codes + r * cols);
            }
        }
    });
    return FOGZO_OK;
}
