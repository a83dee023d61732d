// Kernel of probe_matmul: a tile of y on tensor cores, the codes staying packed up to the registers.
#pragma once
#include "launch.cuh"
#include "probe_matmul_decode.cuh"
#include "probe_matmul_finish.cuh"

namespace fogzo {

// block_m x block_n of y by warps_m x warps_n warps. grouped: a scale for each group of k.
template <int block_m_, int block_n_, int warps_m_, int warps_n_, bool grouped_, int blocks_> struct TileShape {
    static constexpr int block_m = block_m_;
    static constexpr int block_n = block_n_;
    static constexpr int warps_n = warps_n_;
    static constexpr int threads = 32 * warps_m_ * warps_n_;
    static constexpr int tall = block_m / warps_m_ / 16;  // products of a warp, 16 x 8 each
    static constexpr int wide = block_n / warps_n_ / 8;
    static constexpr int band = 16 * tall;          // rows of a warp
    static constexpr int sums_pitch = block_n + 8;  // words; eight rows of a warp meet all banks
    static constexpr bool grouped = grouped_;
    static constexpr int blocks = blocks_;  // on a multiprocessor, that registers must suffice for
};

constexpr int kMostShared = 96 * 1024;  // bytes: what every GPU from compute capability 8.0 on has for a thread block
constexpr int kMostStages = 4;

template <int x_type> constexpr int x_size = x_type == kInt8X ? 1 : x_type == kBfloat16X ? 2 : 4;

// The stages of x [block_m, kStep] and codes [block_n, kStep] in shared memory.
template <int x_type, int bits, class Shape> struct Stages {
    static constexpr int x_row = kStep * x_size<x_type>;
    static constexpr int code_row = kStep * bits / 8;
    static constexpr int x_bytes = Shape::block_m * x_row;
    static constexpr int bytes = x_bytes + Shape::block_n * code_row;
    static constexpr int fitting = kMostShared / bytes;
    static constexpr int count = fitting < kMostStages ? fitting : kMostStages;
    static constexpr int all_bytes = count * bytes;
    static_assert(count >= 2, "loads must run beside products");
};

// Where 16 bytes `chunk` of a row lie in it, so that eight threads, which read the same part of two rows by four
// threads each, meet all 32 banks.
template <int x_type> __device__ __forceinline__ int x_place(int row, int chunk) {
    if constexpr (x_type == kInt8X) {
        return chunk ^ ((row & 1) << 2);
    } else if constexpr (x_type == kBfloat16X) {
        return chunk ^ (row & 1);
    } else {
        return chunk ^ ((row & 1) | ((chunk >> 3 & 1) << 1));
    }
}

// The same for the half of a row of codes that holds span 0 or 1, by rows of as many bytes as the banks.
template <int bits> __device__ __forceinline__ int code_half(int row, int span) {
    return bits == 1 ? span : span ^ (row >> (bits == 2 ? 2 : bits == 4 ? 1 : 0) & 1);
}

// `count` rows from `data` on to shared memory, bytes from `from` on; rows behind number `last` repeat it, bytes behind
// the pitch are zeros. A loop: unrolled, its addresses would take the registers that the sums need.
template <int count, int row_bytes, int threads, class Place>
__device__ __forceinline__ void stage_rows(unsigned char* to, const unsigned char* data, int64_t pitch, int last,
                                           int64_t from, Place place) {
    constexpr int chunks = row_bytes / 16;
    static_assert(threads % chunks == 0, "a thread has one part of the rows");
    const int chunk = static_cast<int>(threadIdx.x) % chunks;
    const bool inside = from + chunk * 16 < pitch;
    data += inside ? from + chunk * 16 : 0;
#pragma unroll 1
    for (int row = static_cast<int>(threadIdx.x) / chunks; row < count; row += threads / chunks) {
        const int source = row < last ? row : last;
        copy_async(to + row * row_bytes + place(row, chunk) * 16, data + source * pitch, inside ? 16 : 0);
    }
}

__device__ __forceinline__ int last_of_tile(int64_t left, int size) {
    return static_cast<int>(left < size ? left : size) - 1;
}

// A thread block's tile of y, and the rows of x and codes that it is made of.
template <class Shape> struct Tile {
    int64_t batch;
    int64_t m0;  // its first row of y
    int64_t c0;  // its first column
    const unsigned char* x;
    const unsigned char* codes;
    int last_row;  // of it that is there
    int last_column;

    // kBand tiles of rows run side by side.
    __device__ __forceinline__ explicit Tile(const MatmulJob& job) : batch(blockIdx.z) {
        const int tile = static_cast<int>(blockIdx.x);
        const int band = tile / (kBand * job.tiles_n);
        const int left = job.tiles_m - band * kBand;
        const int tall = left < kBand ? left : kBand;
        const int within = tile - band * kBand * job.tiles_n;
        m0 = static_cast<int64_t>(band * kBand + within % tall) * Shape::block_m;
        c0 = static_cast<int64_t>(within / tall) * Shape::block_n;
        x = job.x + (batch * job.x_batch + m0) * job.x_pitch;
        codes = job.codes + (batch * job.code_batch + c0) * job.code_pitch;
        last_row = last_of_tile(job.rows - m0, Shape::block_m);
        last_column = last_of_tile(job.columns - c0, Shape::block_n);
    }
};

template <int x_type, int bits, class Shape>
__device__ __forceinline__ void stage(unsigned char* to, const MatmulJob& job, const Tile<Shape>& tile, int step) {
    using Stage = Stages<x_type, bits, Shape>;
    stage_rows<Shape::block_m, Stage::x_row, Shape::threads>(
        to, tile.x, job.x_pitch, tile.last_row, static_cast<int64_t>(step) * Stage::x_row,
        [](int row, int chunk) { return x_place<x_type>(row, chunk); });
    stage_rows<Shape::block_n, Stage::code_row, Shape::threads>(
        to + Stage::x_bytes, tile.codes, job.code_pitch, tile.last_column, static_cast<int64_t>(step) * Stage::code_row,
        [](int row, int chunk) {
            constexpr int half = bits == 1 ? 1 : bits / 2;
            return code_half<bits>(row, chunk / half) * half + chunk % half;
        });
}

// acc [tall, wide, 16, 8] += x @ q.T over the kSpan k of one span, whose operands lie in a stage. x points to the
// warp's first row, codes to its first column, both rows of shared memory with a multiple of 8 before them.
template <int x_type, int bits, class Shape, class Acc>
__device__ __forceinline__ void multiply_span(const unsigned char* x, const unsigned char* codes, int span,
                                              const OperandRule& rule, Acc (&acc)[Shape::tall][Shape::wide][4]) {
    using Stage = Stages<x_type, bits, Shape>;
    const int lane = threadIdx.x % 32;
    const int g = lane / 4;
    const int t = lane % 4;
    constexpr int words = x_type == kInt8X ? 4 : 8;
    uint32_t q[Shape::wide][words];
#pragma unroll
    for (int j = 0; j < Shape::wide; ++j) {
        const unsigned char* at = codes + (8 * j + g) * Stage::code_row;
        const CodeWords<bits> held = load_codes<bits>(at + code_half<bits>(g, span) * 8 * bits + 2 * bits * t);
        if constexpr (x_type == kInt8X) {
            decode_s8<bits>(rule, held, q[j]);
        } else {
            decode_bf16<bits>(rule, held, q[j]);
        }
    }
    constexpr int chunks = x_size<x_type>;  // of 16 bytes in kHeld numbers
#pragma unroll
    for (int i = 0; i < Shape::tall; ++i) {
        Bytes16 held[2][chunks];
#pragma unroll
        for (int half = 0; half < 2; ++half) {
#pragma unroll
            for (int c = 0; c < chunks; ++c) {
                const int place = x_place<x_type>(g, (span * 4 + t) * chunks + c);
                held[half][c] =
                    *reinterpret_cast<const Bytes16*>(x + (16 * i + 8 * half + g) * Stage::x_row + place * 16);
            }
        }
        uint32_t arranged[2][4];
        if constexpr (x_type == kInt8X) {
            arrange_s8<bits>(held[0][0], arranged[0]);
            arrange_s8<bits>(held[1][0], arranged[1]);
        }
#pragma unroll
        for (int s = 0; s < words / 2; ++s) {
            constexpr int parts = x_type == kFloat32X ? 3 : 1;
            uint32_t a[parts][4];
            if constexpr (x_type == kFloat32X) {
                split_pairs<bits>(held, s, a);
            } else if constexpr (x_type == kBfloat16X) {
                pairs_bf16<bits>(held, s, a[0]);
            } else {
#pragma unroll
                for (int r = 0; r < 4; ++r) {
                    a[0][r] = arranged[r % 2][2 * s + r / 2];
                }
            }
#pragma unroll
            for (int part = parts - 1; part >= 0; --part) {  // the smallest first
#pragma unroll
                for (int j = 0; j < Shape::wide; ++j) {
                    if constexpr (x_type == kInt8X) {
                        multiply_s8(acc[i][j], a[part], q[j][2 * s], q[j][2 * s + 1]);
                    } else {
                        multiply_bf16(acc[i][j], a[part], q[j][2 * s], q[j][2 * s + 1]);
                    }
                }
            }
        }
    }
}

// Grid: x over tiles, y over shares of k, z over batches.
template <int x_type, int bits, class Shape>
__global__ void __launch_bounds__(Shape::threads, Shape::blocks) probe_matmul_kernel(FOGZO_CONSTANT(MatmulJob) job) {
    using Stage = Stages<x_type, bits, Shape>;
    using Acc = SumOf<x_type, false>;
    using Total = SumOf<x_type, Shape::grouped>;
    unsigned char* shared = dynamic_shared<unsigned char>();
    const Tile<Shape> tile(job);
    const int warp = threadIdx.x / 32;
    const int warp_m = warp / Shape::warps_n * Shape::band;
    const int warp_n = warp % Shape::warps_n * Shape::wide * 8;

    const int all = (job.spans + 1) / 2;
    const int first = static_cast<int>(blockIdx.y) * job.steps_a_split;
    const int last = first + job.steps_a_split < all ? first + job.steps_a_split : all;
#pragma unroll
    for (int s = 0; s < Stage::count - 1; ++s) {
        if (first + s < last) {
            stage<x_type, bits>(shared + s * Stage::bytes, job, tile, first + s);
        }
        commit_copies();
    }
    Acc acc[Shape::tall][Shape::wide][4] = {};
    __shared__ int64_t scale_rows[Shape::grouped ? Shape::block_n : 1];
    static_assert(sizeof(scale_rows) <= kSharedOfItsOwn);
    GroupTotals<x_type, Shape> totals(job, first, tile.c0, warp_n, tile.batch * job.rows + tile.m0 + warp_m,
                                      scale_rows);
    int now = 0;
    for (int step = first; step < last; ++step) {
        wait_copies<Stage::count - 2>();
        __syncthreads();  // the stage is there for all, and all are done with the one before
        const int ahead = step + Stage::count - 1;
        if (ahead < last) {
            const int to = now == 0 ? Stage::count - 1 : now - 1;
            stage<x_type, bits>(shared + to * Stage::bytes, job, tile, ahead);
        }
        commit_copies();
        const unsigned char* here = shared + now * Stage::bytes;
#pragma unroll 1
        for (int span = 0; span < 2; ++span) {
            multiply_span<x_type, bits, Shape>(here + warp_m * Stage::x_row,
                                               here + Stage::x_bytes + warp_n * Stage::code_row, span, job.rule, acc);
            totals.behind_span(job, acc, step * 2 + span, step + 1 == last && span == 1);
        }
        now = now + 1 == Stage::count ? 0 : now + 1;
    }
    Total* sums = reinterpret_cast<Total*>(shared);
    static_assert(Shape::band * Shape::sums_pitch * 4 <= Stage::all_bytes, "sums must fit in the stages");
#pragma unroll 1
    for (int m = 0; m < Shape::block_m; m += Shape::band) {
        __syncthreads();  // all are done with the stages, or the band before, whose memory takes the sums
        if (m == warp_m) {
            put_sums<Shape>(sums + warp_n, totals.of(acc));
        }
        __syncthreads();
        write_tile<x_type, Shape>(job, sums, tile.batch, tile.m0 + m, tile.c0);
    }
}

}  // namespace fogzo
