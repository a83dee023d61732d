#include "probe_matmul_plan.h"
#include "probe_matmul_tiles.cuh"

int fogzo::launch_matmul_int8(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job) {
    return launch_bits<kInt8X>(bits, shape, grid, stream, job);
}
