// Kernel of perturb_quantize: w and grad are read once for the outputs of every probe.
#pragma once
#include "direction.cuh"

namespace fogzo {

enum Form : int { kValues = 0, kCodes = 1, kPacked = 2, kForms = 3 };
constexpr int kNoGrid = 4;  // in place of a grid: nothing is rounded, form must be values

struct PerturbJob {
    Table table;
    Probing probing;
    int form;
    int sides;
};
static_assert(sizeof(PerturbJob) <= kMostArgumentBytes);

// Codes of four neighbours that begin at a multiple of 4, packed from byte (start + k) / per byte on.
__device__ __forceinline__ void store_packed(uint8_t* bytes, const TilePart& part, int k, int bits,
                                             const FourCodes& codes) {
    uint32_t word = 0;
    for (int c = 0; c < 4; ++c) {
        word |= static_cast<uint32_t>(codes.of[c]) << (c * bits);
    }
    const int64_t at = (part.lead + k) * bits;  // in bits; of whole bytes, bits 1 excepted
    if (bits == 1) {
        const uint32_t next = __shfl_down_sync(kAllLanes, word, 1);
        if (threadIdx.x % 2 == 0 && part.has(k)) {
            bytes[at / 8] = static_cast<uint8_t>(word | next << 4);
        }
    } else if (bits == 2) {
        if (part.has(k)) {
            bytes[at / 8] = static_cast<uint8_t>(word);
        }
    } else {
        for (int c = 0; c < 4; c += 8 / bits) {
            if (part.has(k + c)) {
                bytes[at / 8 + c * bits / 8] = static_cast<uint8_t>(word >> (c * bits));
            }
        }
    }
}

__device__ __forceinline__ void store_code_part(uint8_t* to, const TilePart& part, int k, bool vector,
                                                const FourCodes& codes) {
    if (vector && part.whole(k)) {
        store_codes(to, part.lead + k, 4, true, codes);
        return;
    }
    for (int c = 0; c < 4; ++c) {
        if (part.has(k + c)) {
            to[part.lead + k + c] = static_cast<uint8_t>(codes.of[c]);
        }
    }
}

// One side of one four, which is stored; returns how many codes differ from those of x.
__device__ __forceinline__ int round_and_store(const PerturbJob& job, const TensorRow& row, const Grid& grid,
                                               const TilePart& part, int k, int64_t side, const Four& x,
                                               const Four& moved) {
    FourCodes code;
    int flips = 0;
    for (int c = 0; c < 4; ++c) {
        code.of[c] = code_of(grid, moved.of[c]);
        if (row.flip_count != nullptr && part.has(k + c)) {
            flips += code.of[c] != code_of(grid, x.of[c]) ? 1 : 0;
        }
    }
    if (job.form == kPacked) {
        const int64_t bytes = row.numel * grid.storage_bits / 8;
        store_packed(static_cast<uint8_t*>(row.out) + side * bytes, part, k, grid.storage_bits, code);
    } else if (job.form == kCodes) {
        store_code_part(static_cast<uint8_t*>(row.out) + side * row.numel, part, k, row.vector, code);
    } else {
        const Four a = scales_of_part(row.scales, part, k);
        Four value;
        for (int c = 0; c < 4; ++c) {
            value.of[c] = a.of[c] * value_of(grid, code.of[c]);
        }
        store_part(static_cast<float*>(row.out) + side * row.numel, part, k, row.vector, value);
    }
    return flips;
}

// w + a d and w - a d, in the unit of w.
__device__ __forceinline__ void move_and_store(const PerturbJob& job, const TensorRow& row, const TilePart& part, int k,
                                               int64_t side, const Four& d) {
    const Four w = load_part(row.w, part, k, row.vector);
    const Four a = scales_of_part(row.scales, part, k);
    Four plus;
    Four minus;
    for (int c = 0; c < 4; ++c) {
        const float shift = a.of[c] * d.of[c];
        plus.of[c] = w.of[c] + shift;
        minus.of[c] = w.of[c] - shift;
    }
    float* out = static_cast<float*>(row.out) + side * row.numel;
    store_part(out, part, k, row.vector, plus);
    if (job.sides == 2) {
        store_part(out + row.numel, part, k, row.vector, minus);
    }
}

template <int kind>
__global__ void __launch_bounds__(kThreads, 3) perturb_quantize_kernel(FOGZO_CONSTANT(PerturbJob) job) {
    const TensorRow& row = row_of(job.table.rows, job.table.count, blockIdx.x);
    const TilePart part = tile_of(row, blockIdx.x);
    if (part.low >= part.high) {
        return;  // a whole warp
    }
    Direction direction = Direction::of(job.probing, row);
    const float e = direction.mixture.e;
    // Each thread's own: registers could not be indexed, and loops that need no index spell everything out eight times.
    __shared__ Four held_x[kFours][kThreads];
    __shared__ Four held_gw[kFours][kThreads];
#pragma unroll 1
    for (int four = 0; four < kFours; ++four) {
        const int k = part.k_of(four);
        const Four w = load_part(row.w, part, k, row.vector);
        const Four grad = load_part(row.grad, part, k, row.vector);
        const Four a = scales_of_part(row.scales, part, k);
        Four x;
        Four gw;
        for (int c = 0; c < 4; ++c) {
            x.of[c] = w.of[c] * (1.0f / a.of[c]);
            gw.of[c] = grad.of[c] * whitening(a.of[c], e);
        }
        held_x[four][threadIdx.x] = x;
        held_gw[four][threadIdx.x] = gw;
    }
    const Grid grid = make_grid(row.grid, row.bits);
    for (int64_t i = 0; i < job.probing.probes; ++i) {
        const float along = direction.open(job.probing, i);
        PartNoise<kind> noise;
        noise.draw(direction.stream, part.tile);
        int flips[2] = {0, 0};
#pragma unroll 1
        for (int four = 0; four < kFours; ++four) {
            const int k = part.k_of(four);
            const Four x = held_x[four][threadIdx.x];
            const Four gw = held_gw[four][threadIdx.x];
            Four d;
            for (int c = 0; c < 4; ++c) {
                const float bins = noise.bins(four, c, e, row.surrogate, job.probing.table);
                d.of[c] = perturbation(along, gw.of[c], direction.mixture.across, bins);
            }
            if (row.grid == kNoGrid) {
                move_and_store(job, row, part, k, i * job.sides, d);
                continue;
            }
#pragma unroll 1
            for (int side = 0; side < job.sides; ++side) {
                Four moved;
                for (int c = 0; c < 4; ++c) {
                    moved.of[c] = side == 0 ? x.of[c] + d.of[c] : x.of[c] - d.of[c];
                }
                const int found = round_and_store(job, row, grid, part, k, i * job.sides + side, x, moved);
                flips[0] += side == 0 ? found : 0;
                flips[1] += side == 0 ? 0 : found;
            }
        }
        if (row.flip_count != nullptr) {
#pragma unroll
            for (int side = 0; side < 2; ++side) {
                const int count = warp_sum(flips[side]);
                if (threadIdx.x % 32 == 0 && side < job.sides) {
                    atomicAdd(reinterpret_cast<unsigned long long*>(row.flip_count + i * job.sides + side),
                              static_cast<unsigned long long>(count));
                }
            }
        }
    }
}

}  // namespace fogzo
