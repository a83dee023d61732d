#include "fogzo/cpu.h"
#include "source.h"
#include "view.h"

using namespace fogzo;

extern "C" int fogzo_cpu_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset,
                               int64_t row_pitch, int surrogate, int noise, uint64_t seed, int64_t step, int64_t tensor,
                               int64_t probe, int threads) {
    const float one = 1.0f;
    const View view = {rows, cols, &one, 1, 1};
    const Draw draw = {surrogate, noise, seed, step, tensor, table, offset, row_pitch};
    int status = check_view(view, 1);
    if (status == FOGZO_OK) {
        status = check_draw(draw, rows, cols, probe, 1);
    }
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    if (out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const float e = static_cast<float>(radius(surrogate, noise));
    const Walk walk = make_walk(view, row_pitch == cols);
    each_range(walk.blocks, threads, [&](int64_t first, int64_t last) {
        TileStarts starts;
        NoiseSource source;
        source.open(draw, 1.0f, probe, starts);
        for (int64_t b = first; b < last; ++b) {
            const Block block = walk.at(b);
            float* u = out + block.first;
            source.read(draw.number(block.row, block.col), block.n, u);
            for (int i = 0; i < block.n; ++i) {
                u[i] = u[i] / e;
            }
        }
    });
    return FOGZO_OK;
}
