#include "probe_matmul_plan.h"
#include "probe_matmul_wgmma.cuh"

using namespace fogzo;

namespace {

template <int x_type, int bits, bool grouped> int launch_grouped(dim3 grid, void* stream, const MatmulJob& job) {
    using Shape = WgmmaShape<grouped>;
    return launch<probe_matmul_wgmma_kernel<x_type, bits, Shape>>(
        grid, Shape::threads, WgmmaStages<x_type, bits, Shape>::all_bytes + kSwizzleAtom, stream, job);
}

template <int x_type, int bits> int launch_shape(int shape, dim3 grid, void* stream, const MatmulJob& job) {
    return shape == kWgmmaGroupScale ? launch_grouped<x_type, bits, true>(grid, stream, job)
                                     : launch_grouped<x_type, bits, false>(grid, stream, job);
}

template <int x_type> int launch_bits(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job) {
    switch (bits) {
    case 1: return launch_shape<x_type, 1>(shape, grid, stream, job);
    case 2: return launch_shape<x_type, 2>(shape, grid, stream, job);
    case 4: return launch_shape<x_type, 4>(shape, grid, stream, job);
    default: return launch_shape<x_type, 8>(shape, grid, stream, job);
    }
}

}  // namespace

int fogzo::launch_matmul_wgmma(int x_type, int bits, int shape, dim3 grid, void* stream, const MatmulJob& job) {
    return x_type == kInt8X ? launch_bits<kInt8X>(bits, shape, grid, stream, job)
                            : launch_bits<kBfloat16X>(bits, shape, grid, stream, job);
}
