// Kernel of assemble_gradient: the noise is made again, grad read once and perhaps written over.
#pragma once
#include "direction.cuh"

namespace fogzo {

struct AssembleJob {
    Table table;
    Probing probing;
    const float* differences;  // [probes]
};
static_assert(sizeof(AssembleJob) <= kMostArgumentBytes);

template <int kind>
__global__ void __launch_bounds__(kThreads, 4) assemble_gradient_kernel(FOGZO_CONSTANT(AssembleJob) job) {
    const TensorRow& row = row_of(job.table.rows, job.table.count, blockIdx.x);
    const TilePart part = tile_of(row, blockIdx.x);
    if (part.low >= part.high) {
        return;  // a whole warp
    }
    Direction direction = Direction::of(job.probing, row);
    const float e = direction.mixture.e;
    // Each thread's own, as in perturb_quantize.
    __shared__ Four held_gw[kFours][kThreads];
    __shared__ Four held_sum[kFours][kThreads];
#pragma unroll 1
    for (int four = 0; four < kFours; ++four) {
        const Four grad = load_part(row.grad, part, part.k_of(four), row.vector);
        const Four a = scales_of_part(row.scales, part, part.k_of(four));
        Four gw;
        for (int c = 0; c < 4; ++c) {
            gw.of[c] = grad.of[c] * whitening(a.of[c], e);
        }
        held_gw[four][threadIdx.x] = gw;
    }
    for (int64_t i = 0; i < job.probing.probes; ++i) {
        const float along = direction.open(job.probing, i);
        const float difference = job.differences[i];
        PartNoise<kind> noise;
        noise.draw(direction.stream, part.tile);
#pragma unroll 2
        for (int four = 0; four < kFours; ++four) {
            const Four gw = held_gw[four][threadIdx.x];
            Four sum = held_sum[four][threadIdx.x];
            for (int c = 0; c < 4; ++c) {
                const float bins = noise.bins(four, c, e, row.surrogate, job.probing.table);
                const float term = difference * perturbation(along, gw.of[c], direction.mixture.across, bins);
                sum.of[c] = i == 0 ? term : sum.of[c] + term;
            }
            held_sum[four][threadIdx.x] = sum;
        }
    }
    const float probes = static_cast<float>(job.probing.probes);
#pragma unroll 1
    for (int four = 0; four < kFours; ++four) {
        const Four a = scales_of_part(row.scales, part, part.k_of(four));
        const Four sum = held_sum[four][threadIdx.x];
        Four gradient;
        for (int c = 0; c < 4; ++c) {
            gradient.of[c] = sum.of[c] * gain(probes, e, a.of[c]);
        }
        store_part(static_cast<float*>(row.out), part, part.k_of(four), row.vector, gradient);
    }
}

}  // namespace fogzo
