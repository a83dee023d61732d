#include "hadamard_quantize.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

extern "C" int fogzo_cuda_hadamard_quantize(const float* w, float* values, uint8_t* codes, float* scale, int64_t rows,
                                            int64_t cols, double multiple, int grid, int bits, void* stream) {
    const int status = check_sizes(rows, cols, 1);
    if (status != FOGZO_OK) {
        return status;
    }
    if (!grid_exists(grid, bits)) {
        return FOGZO_BAD_GRID;
    }
    if (rows * cols == 0) {
        return FOGZO_OK;
    }
    if (w == nullptr || scale == nullptr || (values == nullptr) == (codes == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(w, values, scale)) {
        return FOGZO_UNALIGNED;
    }
    QuestJob job = {};
    job.w = w;
    job.values = values;
    job.codes = codes;
    job.scale = scale;
    job.rows = rows;
    job.cols = cols;
    job.multiple = multiple;
    for (int i = 0; i < 8; ++i) {
        job.factors[i] = static_cast<float>(1.0 / sqrt(static_cast<double>(1 << i)));
    }
    job.grid = make_grid(grid, bits);
    job.vector = (rows == 1 || cols % 4 == 0) && aligned(w, 16) && aligned(values, 16) && aligned(codes, 4);
    return launch<hadamard_quantize_kernel>(blocks_for(rows, 1), kQuestThreads, 0, stream, job);
}
