// Kernel of probe_matmul for compute capability 9.0: a tile of y by products of warpgroups. The codes are their operand
// in registers, x is the one in shared memory, so that a tile is computed transposed: columns of y are its rows.
#pragma once
#include "probe_matmul.cuh"
#include "probe_matmul_wgmma_decode.cuh"

namespace fogzo {

template <bool grouped_> struct WgmmaShape {
    static constexpr bool grouped = grouped_;
    static constexpr int tall = grouped ? 1 : 2;  // products of a warpgroup side by side, 64 columns of y each
    static constexpr int threads = 2 * kWarpgroup;
    static constexpr int block_m = kWgmmaColumns;
    static constexpr int block_n = 2 * 64 * tall;
    static constexpr int band = 64;                 // rows that pass through shared memory at once
    static constexpr int sums_pitch = block_n + 4;  // words; two rows of four, eight columns of a warp meet all banks
};

constexpr int kMostWgmmaShared = 227 * 1024 - kSwizzleAtom;  // bytes: an atom is left to begin at a whole one

// The stages of x [kStep in rows of 128 bytes, block_m] and codes [block_n, kStep] in shared memory. Loads run two
// stages behind their number: the products of the last step still read theirs when the next step begins.
template <int x_type, int bits, class Shape> struct WgmmaStages {
    static constexpr int slices = kStep * x_size<x_type> / kSwizzledRow;
    static constexpr int slice_bytes = Shape::block_m * kSwizzledRow;
    static constexpr int code_row = kStep * bits / 8;
    static constexpr int x_bytes = slices * slice_bytes;
    static constexpr int bytes = x_bytes + Shape::block_n * code_row;
    static constexpr int fitting = kMostWgmmaShared / bytes;
    static constexpr int count = fitting < kMostStages ? fitting : kMostStages;
    static constexpr int ahead = count - 2;
    static constexpr int all_bytes = count * bytes;
    static_assert(ahead >= 1, "loads must run beside products");
    static_assert(bytes % kSwizzleAtom == 0, "every stage begins at a whole atom");
};

template <int x_type, int bits, class Shape>
__device__ __forceinline__ void stage_wgmma(unsigned char* to, const MatmulJob& job, const Tile<Shape>& tile,
                                            int step) {
    using Stage = WgmmaStages<x_type, bits, Shape>;
#pragma unroll
    for (int slice = 0; slice < Stage::slices; ++slice) {
        stage_rows<Shape::block_m, kSwizzledRow, Shape::threads>(
            to + slice * Stage::slice_bytes, tile.x, job.x_pitch, tile.last_row,
            (static_cast<int64_t>(step) * Stage::slices + slice) * kSwizzledRow,
            [](int row, int chunk) { return swizzled(row, chunk); });
    }
    stage_rows<Shape::block_n, Stage::code_row, Shape::threads>(
        to + Stage::x_bytes, tile.codes, job.code_pitch, tile.last_column, static_cast<int64_t>(step) * Stage::code_row,
        [](int row, int chunk) { return code_place<bits>(row, chunk); });
}

// Row of x of element i of a thread's 64 sums, from row 2 t on; its column is 8 further where i / 2 is odd.
__device__ constexpr int row_of_sum(int i) { return i / 4 * 8 + i % 2; }

// Totals over the groups of k: nothing where the scale is outside the sum.
template <int x_type, class Shape, bool grouped = Shape::grouped> struct WgmmaTotals {
    static constexpr bool add = true;
    template <class... Any> __device__ __forceinline__ explicit WgmmaTotals(const Any&...) {}
    __device__ __forceinline__ void behind_product() {}
    template <class... Any> __device__ __forceinline__ void behind_span(const Any&...) {}
    template <class Acc> __device__ __forceinline__ Acc& of(Acc& acc) { return acc; }
};

template <int x_type, class Shape> struct WgmmaTotals<x_type, Shape, true> {
    float total[Shape::tall][64] = {};
    bool add = false;  // whether the next product goes on with a group's sums
    int64_t scales[2 * Shape::tall];
    GroupEnds ends;
    int64_t x_row;

    __device__ __forceinline__ WgmmaTotals(const MatmulJob& job, int step, int64_t column, int64_t first_row)
        : ends(job, step), x_row(first_row) {
#pragma unroll
        for (int i = 0; i < 2 * Shape::tall; ++i) {
            scales[i] = scale_row(job, column + i / 2 * 64 + i % 2 * 8);
        }
    }

    __device__ __forceinline__ void behind_product() { add = true; }

    // Where a group or this share of k ends: the sums are scaled and begin anew. `span` was multiplied last.
    template <class Acc>
    __device__ __forceinline__ void behind_span(const MatmulJob& job, Acc (&acc)[Shape::tall][64], int span,
                                                bool last) {
        if (!ends.behind_span(job, span, last)) {
            return;
        }
        wait_wgmma<0>();
        add = false;
#pragma unroll
        for (int i = 0; i < 64; ++i) {
            const int32_t extra = x_type == kInt8X && job.out.x_sums != nullptr && ends.closed
                                      ? x_sum_at(job, x_row + row_of_sum(i), ends.group)
                                      : 0;
#pragma unroll
            for (int j = 0; j < Shape::tall; ++j) {
                wgmma_arrived(acc[j][i]);
                const float a = job.out.scale[scales[2 * j + i / 2 % 2] + ends.group];
                total[j][i] += a * value_of_sum(job, acc[j][i], extra);
            }
        }
        ends.begin_next(job);
    }

    template <class Acc> __device__ __forceinline__ auto of(Acc&) -> float (&)[Shape::tall][64] { return total; }
};

// Grid: x over tiles, y over shares of k, z over batches.
template <int x_type, int bits, class Shape>
__global__ void __launch_bounds__(Shape::threads, 1) probe_matmul_wgmma_kernel(FOGZO_CONSTANT(MatmulJob) job) {
    using Stage = WgmmaStages<x_type, bits, Shape>;
    using Acc = SumOf<x_type, false>;
    using Total = SumOf<x_type, Shape::grouped>;
    unsigned char* shared = dynamic_shared<unsigned char>();
    shared += (kSwizzleAtom - shared_address(shared) % kSwizzleAtom) % kSwizzleAtom;
    const Tile<Shape> tile(job);
    const int g = threadIdx.x % 32 / 4;
    const int t = threadIdx.x % 4;
    const int own = threadIdx.x / kWarpgroup * 64 * Shape::tall + threadIdx.x % kWarpgroup / 32 * 16 + g;  // column
    const int swizzle = code_place<bits>(g, 0);

    const int all = (job.spans + 1) / 2;
    const int first = static_cast<int>(blockIdx.y) * job.steps_a_split;
    const int last = first + job.steps_a_split < all ? first + job.steps_a_split : all;
#pragma unroll
    for (int s = 0; s < Stage::ahead; ++s) {
        if (first + s < last) {
            stage_wgmma<x_type, bits>(shared + s * Stage::bytes, job, tile, first + s);
        }
        commit_copies();
    }
    Acc acc[Shape::tall][64] = {};
    uint32_t a[2][Shape::tall][4];  // of this product and of the one under way
    WgmmaTotals<x_type, Shape> totals(job, first, tile.c0 + own, tile.batch * job.rows + tile.m0 + 2 * t);
    int now = 0;
    for (int step = first; step < last; ++step) {
        wait_copies<Stage::ahead - 1>();
        publish_to_wgmma();
        __syncthreads();  // the stage is there for all, and all are done with the one before the last
        if (step + Stage::ahead < last) {
            const int to = now + Stage::ahead < Stage::count ? now + Stage::ahead : now + Stage::ahead - Stage::count;
            stage_wgmma<x_type, bits>(shared + to * Stage::bytes, job, tile, step + Stage::ahead);
        }
        commit_copies();
        const unsigned char* here = shared + now * Stage::bytes;
        constexpr int parts = kSwizzledRow / kWgmmaBytes * Stage::slices;
#pragma unroll
        for (int part = 0; part < parts; ++part) {
            constexpr int in_slice = kSwizzledRow / kWgmmaBytes;
            const uint64_t rows =
                describe_rows(here + part / in_slice * Stage::slice_bytes) + part % in_slice * (kWgmmaBytes / 16);
#pragma unroll
            for (int i = 0; i < Shape::tall; ++i) {
                product_codes<x_type, bits>(job.rule, here + Stage::x_bytes + (own + 64 * i) * Stage::code_row, swizzle,
                                            part, t, a[part % 2][i]);
            }
            fence_wgmma();
#pragma unroll
            for (int i = 0; i < Shape::tall; ++i) {
                multiply_warpgroup(acc[i], a[part % 2][i], rows, totals.add);
            }
            commit_wgmma();
            totals.behind_product();
            wait_wgmma<1>();
            if (part % (parts / 2) == parts / 2 - 1) {
                totals.behind_span(job, acc, step * 2 + part / (parts / 2), step + 1 == last && part + 1 == parts);
            }
        }
        now = now + 1 == Stage::count ? 0 : now + 1;
    }
    wait_wgmma<0>();
    Total* sums = reinterpret_cast<Total*>(shared);
    static_assert(Shape::band * Shape::sums_pitch * 4 <= Stage::all_bytes, "sums must fit in the stages");
#pragma unroll
    for (int m = 0; m < Shape::block_m; m += Shape::band) {
        __syncthreads();  // all are done with the stages, or the band before, whose memory takes the sums
#pragma unroll
        for (int i = 0; i < Shape::tall; ++i) {
#pragma unroll
            for (int j = m / 2; j < (m + Shape::band) / 2; ++j) {
                wgmma_arrived(acc[i][j]);
                sums[(2 * t + row_of_sum(j) - m) * Shape::sums_pitch + own + 64 * i + j / 2 % 2 * 8] =
                    totals.of(acc)[i][j];
            }
        }
        __syncthreads();
        write_tile<x_type, Shape>(job, sums, tile.batch, tile.m0 + m, tile.c0);
    }
}

}  // namespace fogzo
