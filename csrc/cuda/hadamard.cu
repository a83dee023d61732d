#include "hadamard.cuh"

#include "fogzo/cuda.h"
#include "launch.cuh"

using namespace fogzo;

extern "C" int fogzo_cuda_hadamard(const float* x, float* out, int64_t rows, int64_t cols, int64_t block,
                                   void* stream) {
    const int checked = check_sizes(rows, cols, 1);
    if (checked != FOGZO_OK) {
        return checked;
    }
    if (block < 1 || block > int64_t(1) << 20 || (block & (block - 1)) != 0) {
        return FOGZO_BAD_BLOCK;
    }
    if (rows * cols == 0) {
        return FOGZO_OK;
    }
    if (x == nullptr || out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(x, out)) {
        return FOGZO_UNALIGNED;
    }
    const bool flat = cols % block == 0;  // rows end with their blocks: one long row
    RotateJob job = {};
    job.x = x;
    job.out = out;
    job.rows = flat ? 1 : rows;
    job.width = flat ? rows * cols : cols;
    job.block = block;
    job.chunks = (job.width + kRotateChunk - 1) / kRotateChunk;
    for (int i = 0; i < 21; ++i) {
        job.factors[i] = static_cast<float>(1.0 / sqrt(static_cast<double>(int64_t(1) << i)));
    }
    job.vector = (job.rows == 1 || cols % 4 == 0) && aligned(x, 16) && aligned(out, 16);
    int status = launch<hadamard_kernel>(blocks_for(job.rows * job.chunks, 1), kRotateThreads, 0, stream, job);
    for (int64_t stride = kRotateChunk; status == FOGZO_OK && 2 * stride <= block && 2 * stride <= job.width;
         stride *= 2) {
        const int64_t pairs = job.rows * (job.width / (2 * stride)) * stride;
        status =
            launch<hadamard_stage_kernel>(blocks_for(pairs, kRotateThreads), kRotateThreads, 0, stream, job, stride);
    }
    return status;
}
