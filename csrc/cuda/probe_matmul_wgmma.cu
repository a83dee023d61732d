#include "probe_matmul_plan.h"
#include "probe_matmul_wgmma.cuh"

using namespace fogzo;

namespace {

template <int x_type, int bits, bool grouped> int launch_tiles(dim3 grid, void* stream, const MatmulJob& job) {
    using Shape = WgmmaShape<grouped>;
    return launch<probe_matmul_wgmma_kernel<x_type, bits, Shape>>(
        grid, Shape::threads, WgmmaStages<x_type, bits, Shape>::all_bytes + kSwizzleAtom, stream, job);
}

}  // namespace

int fogzo::launch_matmul_wgmma(int x_type, int bits, int shape, dim3 grid, void* stream, const MatmulJob& job) {
    return with_constant<kInt8X, kBfloat16X>(x_type, [&](auto type) {
        return with_constant<1, 2, 4, 8>(bits, [&](auto known) {
            return shape == kWgmmaGroupScale ? launch_tiles<type.value, known.value, true>(grid, stream, job)
                                             : launch_tiles<type.value, known.value, false>(grid, stream, job);
        });
    });
}
