#include <cstring>

#include "fogzo/cpu.h"
#include "kernels.h"
#include "view.h"

using namespace fogzo;

namespace {

int check(const View& view, int kind, int bits) {
    const int status = check_view(view, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    return grid_exists(kind, bits) ? FOGZO_OK : FOGZO_BAD_GRID;
}

}  // namespace

extern "C" int fogzo_cpu_quantize(const float* w, const float* scale, uint8_t* codes, int64_t rows, int64_t cols,
                                  int64_t scale_rows, int64_t scale_cols, int kind, int bits, int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const int status = check(view, kind, bits);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    if (w == nullptr || codes == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Grid grid = make_grid(kind, bits);
    const CodeKernels& kernel = *kernels().code;
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        uint8_t room[kBlock + kSlack];
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                kernel.quantize(w + block.first + i, count, 1.0f / a, grid, room + i);
            });
            std::memcpy(codes + block.first, room, static_cast<size_t>(block.n));
        }
    });
    return FOGZO_OK;
}

extern "C" int fogzo_cpu_dequantize(const uint8_t* codes, const float* scale, float* out, int64_t rows, int64_t cols,
                                    int64_t scale_rows, int64_t scale_cols, int kind, int bits, int threads) {
    const View view = {rows, cols, scale, scale_rows, scale_cols};
    const int status = check(view, kind, bits);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    if (codes == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const Grid grid = make_grid(kind, bits);
    const CodeKernels& kernel = *kernels().code;
    const Walk walk = make_walk(view, true);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            each_scale(view, block, [&](int i, int count, float a) {
                kernel.values(codes + block.first + i, count, a, grid, out + block.first + i);
            });
        }
    });
    return FOGZO_OK;
}
