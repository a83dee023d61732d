#include "noise.cuh"

#include "fogzo/cuda.h"
#include "fogzo/draw.h"
#include "launch.cuh"

using namespace fogzo;

namespace {

constexpr int64_t kMostTiles = 1 << 16;  // thread blocks along a row
constexpr int64_t kMostRows = 1 << 15;   // along y, below CUDA's limit of 65535

template <int surrogate, int noise> int draw_noise(const NoiseJob& job, void* stream) {
    const int64_t tiles = job.cols / span_of<noise> + 2;  // a row may begin and end inside a tile
    const dim3 grid(static_cast<unsigned>(tiles < kMostTiles ? tiles : kMostTiles),
                    static_cast<unsigned>(job.rows < kMostRows ? job.rows : kMostRows));
    return launch<noise_kernel<surrogate, noise>>(grid, kLanes, 0, stream, job);
}

}  // namespace

extern "C" int fogzo_cuda_noise(float* out, const float* table, int64_t rows, int64_t cols, int64_t offset,
                                int64_t row_pitch, int surrogate, int noise, const fogzo_cuda_scalars* scalars,
                                int64_t tensor, int64_t probe, void* stream) {
    if (scalars == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    const int64_t step = scalars->step_at != nullptr ? 0 : scalars->step;
    const Draw draw = {surrogate, noise, scalars->seed, step, tensor, table, offset, row_pitch};
    if (rows < 0 || cols < 0) {
        return FOGZO_BAD_SIZE;
    }
    const int status = check_draw(draw, rows, cols, probe, 1);
    if (status != FOGZO_OK || rows == 0 || cols == 0) {
        return status;
    }
    if (out == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!element_aligned(out, table, scalars->seed_at, scalars->step_at)) {
        return FOGZO_UNALIGNED;
    }
    NoiseJob job = {};
    job.out = out;
    job.table = table;
    job.rows = row_pitch == cols ? 1 : rows;  // dense rows are one long row
    job.cols = row_pitch == cols ? rows * cols : cols;
    job.offset = offset;
    job.row_pitch = row_pitch;
    job.seed_at = scalars->seed_at;
    job.step_at = scalars->step_at;
    job.stream = {scalars->seed, static_cast<uint32_t>(step), static_cast<uint32_t>(tensor),
                  static_cast<uint32_t>(probe)};
    job.e = static_cast<float>(radius(surrogate, noise));
    if (noise == kRademacher) {
        return draw_noise<kIdentity, kRademacher>(job, stream);
    }
    switch (surrogate) {
    case kHardtanh: return draw_noise<kHardtanh, kPublished>(job, stream);
    case kTanh: return draw_noise<kTanh, kPublished>(job, stream);
    case kApproxSign: return draw_noise<kApproxSign, kPublished>(job, stream);
    default: return draw_noise<kIdentity, kPublished>(job, stream);
    }
}

extern "C" int fogzo_cuda_device_count(void) {
    int count = 0;
    return succeeded(cudaGetDeviceCount(&count)) ? count : 0;
}
