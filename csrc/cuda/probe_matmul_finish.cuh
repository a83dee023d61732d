// From the sums of probe_matmul to y: totals over groups of k, scales, bias and the last rounding; the sum of the
// shares that k was split into, and what flips change.
#pragma once
#include "launch.cuh"
#include "probe_matmul_job.h"
#include "ptx.cuh"

namespace fogzo {

template <bool integers> struct SumType {
    using part = float;
    using whole = float;
};
template <> struct SumType<true> {
    using part = int32_t;  // of at most kMostProducts
    using whole = int64_t;
};
template <int x_type, bool grouped> using SumOf = typename SumType<x_type == kInt8X && !grouped>::part;
template <int x_type, bool grouped> using WholeSumOf = typename SumType<x_type == kInt8X && !grouped>::whole;

__device__ __forceinline__ float scale_at(const MatmulOutput& out, int64_t n, int64_t group) {
    return out.scale[(out.scale_rows > 1 ? n : 0) * out.groups + group];
}

// Both are in units of q; twice the sum of int8 products fits in 64 bits whatever k is.
__device__ __forceinline__ float scaled_sum(const MatmulOutput& out, int64_t sum, int64_t x_row, int64_t n) {
    const int64_t exact = out.x_sums != nullptr ? 2 * sum + out.x_sums[x_row] : sum;
    return static_cast<float>(exact) * (out.unit * scale_at(out, n, 0));
}

__device__ __forceinline__ float scaled_sum(const MatmulOutput& out, float sum, int64_t, int64_t n) {
    return sum * (out.unit * scale_at(out, n, 0));
}

// sum: of int8 products an int64_t, else float32; with a scale a group these are in the sum.
template <bool grouped, class Sum>
__device__ __forceinline__ float finished(const MatmulOutput& out, Sum sum, int64_t x_row, int64_t n) {
    float y;
    if constexpr (grouped) {
        y = sum * out.unit;
    } else {
        y = scaled_sum(out, sum, x_row, n);
    }
    y = out.x_scale != nullptr ? y * out.x_scale[x_row] : y;
    return out.bias != nullptr ? y + out.bias[n] : y;
}

// Rounds half to even; NaN stays one.
__device__ __forceinline__ uint32_t to_bfloat16(float x) {
    const uint32_t bits = as_bits(x);
    return x != x ? (bits >> 16) | 0x40u : (bits + 0x7FFFu + (bits >> 16 & 1u)) >> 16;
}

template <int x_type> __device__ __forceinline__ void store(void* y, int64_t at, float value) {
    if constexpr (x_type == kBfloat16X) {
        static_cast<uint16_t*>(y)[at] = static_cast<uint16_t>(to_bfloat16(value));
    } else {
        static_cast<float*>(y)[at] = value;
    }
}

// A group's sum. With sums of x, twice a sum of q, of which a group has at most kMostProducts: it fits in 33 bits.
__device__ __forceinline__ float value_of_sum(const MatmulJob& job, int32_t sum, int32_t extra) {
    return job.out.x_sums != nullptr ? static_cast<float>(2 * static_cast<int64_t>(sum) + extra)
                                     : static_cast<float>(sum);
}

__device__ __forceinline__ float value_of_sum(const MatmulJob&, float sum, int32_t) { return sum; }

// Sums of x over a group, for value_of_sum; rows behind the last repeat it.
__device__ __forceinline__ int32_t x_sum_at(const MatmulJob& job, int64_t x_row, int group) {
    const int64_t row = x_row < job.x_rows ? x_row : job.x_rows - 1;
    return job.out.x_sums[row * job.out.groups + group];
}

// Where the scales of a tile's column begin; columns behind the last repeat it.
__device__ __forceinline__ int64_t scale_row(const MatmulJob& job, int64_t column) {
    const int64_t known = column < job.columns ? column : job.columns - 1;
    return job.out.scale_rows > 1 ? known % job.out.n_size * job.out.groups : 0;
}

// Where the groups of k end.
struct GroupEnds {
    int group;
    int left;  // spans of it
    bool closed = false;

    __device__ __forceinline__ GroupEnds(const MatmulJob& job, int step)
        : group(2 * step / job.spans_a_group), left(job.spans_a_group - 2 * step % job.spans_a_group) {}

    // Whether the sums end with a span that was multiplied last, with their group (closed) or with this share of k.
    __device__ __forceinline__ bool behind_span(const MatmulJob& job, int span, bool last) {
        if (span >= job.spans) {
            return false;
        }
        closed = --left == 0;
        return closed || last || span + 1 == job.spans;
    }

    __device__ __forceinline__ void begin_next(const MatmulJob& job) {
        group += closed ? 1 : 0;
        left = closed ? job.spans_a_group : left;
    }
};

// Totals of a warp's tile over the groups of k: nothing where the scale is outside the sum.
template <int x_type, class Shape, bool grouped = Shape::grouped> struct GroupTotals {
    template <class... Any> __device__ __forceinline__ explicit GroupTotals(const Any&...) {}
    template <class... Any> __device__ __forceinline__ void behind_span(const Any&...) {}
    template <class Acc> __device__ __forceinline__ Acc& of(Acc& acc) { return acc; }
};

template <int x_type, class Shape> struct GroupTotals<x_type, Shape, true> {
    float total[Shape::tall][Shape::wide][4] = {};
    const int64_t* scale_rows;  // in shared memory, where each column's scales begin
    GroupEnds ends;
    int64_t x_row;

    // scale_rows is filled in here and read behind the block's next barrier.
    __device__ __forceinline__ GroupTotals(const MatmulJob& job, int step, int64_t c0, int warp_n, int64_t first_row,
                                           int64_t* rows)
        : scale_rows(rows + warp_n + threadIdx.x % 4 * 2), ends(job, step), x_row(first_row + threadIdx.x % 32 / 4) {
        for (int i = threadIdx.x; i < Shape::block_n; i += Shape::threads) {
            rows[i] = scale_row(job, c0 + i);
        }
    }

    // Where a group or this share of k ends: the sums are scaled and begin anew. `span` was added last.
    template <class Acc>
    __device__ __forceinline__ void behind_span(const MatmulJob& job, Acc (&acc)[Shape::tall][Shape::wide][4], int span,
                                                bool last) {
        if (!ends.behind_span(job, span, last)) {
            return;
        }
        int32_t extra[2 * Shape::tall] = {};
        if (x_type == kInt8X && job.out.x_sums != nullptr && ends.closed) {
#pragma unroll
            for (int i = 0; i < 2 * Shape::tall; ++i) {
                extra[i] = x_sum_at(job, x_row + 8 * i, ends.group);
            }
        }
#pragma unroll
        for (int j = 0; j < Shape::wide; ++j) {
#pragma unroll
            for (int c = 0; c < 2; ++c) {
                const float a = job.out.scale[scale_rows[8 * j + c] + ends.group];
#pragma unroll
                for (int i = 0; i < 2 * Shape::tall; ++i) {
                    Acc& sum = acc[i / 2][j][i % 2 * 2 + c];
                    total[i / 2][j][i % 2 * 2 + c] += a * value_of_sum(job, sum, extra[i]);
                    sum = 0;
                }
            }
        }
        ends.begin_next(job);
    }

    template <class Acc> __device__ __forceinline__ auto of(Acc&) -> float (&)[Shape::tall][Shape::wide][4] {
        return total;
    }
};

// A tile's sums through shared memory, so that a thread ends one column and a warp writes 32 neighbours.
template <class Shape, class Sum>
__device__ __forceinline__ void put_sums(Sum* shared, const Sum (&sums)[Shape::tall][Shape::wide][4]) {
    const int lane = threadIdx.x % 32;
#pragma unroll
    for (int i = 0; i < 2 * Shape::tall; ++i) {
#pragma unroll
        for (int j = 0; j < Shape::wide; ++j) {
            Sum* at = shared + (8 * i + lane / 4) * Shape::sums_pitch + 8 * j + lane % 4 * 2;
            at[0] = sums[i / 2][j][i % 2 * 2];
            at[1] = sums[i / 2][j][i % 2 * 2 + 1];
        }
    }
}

// Sums [band, block_n] of the tile at row m0 and column c0 to y, or to this share's part.
template <int x_type, class Shape, class Sum>
__device__ __forceinline__ void write_tile(const MatmulJob& job, const Sum* sums, int64_t batch, int64_t m0,
                                           int64_t c0) {
    static_assert(Shape::threads % Shape::block_n == 0, "a thread has one column");
    const int own = threadIdx.x % Shape::block_n;
    const int64_t column = c0 + own;
    if (column >= job.columns) {
        return;
    }
    const int64_t within = job.sides_a_batch > 1 ? column / job.out.n_size : 0;
    const int64_t n = column - within * job.out.n_size;
    const int64_t first = (batch * job.sides_a_batch + within) * job.rows;
    Sum* parts = static_cast<Sum*>(job.parts) + blockIdx.y * (job.sides * job.rows * job.out.n_size);
#pragma unroll 2
    for (int row = threadIdx.x / Shape::block_n; row < Shape::band; row += Shape::threads / Shape::block_n) {
        const int64_t m = m0 + row;
        if (m >= job.rows) {
            return;
        }
        const int64_t at = (first + m) * job.out.n_size + n;
        const Sum sum = sums[row * Shape::sums_pitch + own];
        if (job.parts != nullptr) {
            parts[at] = sum;
        } else {
            store<x_type>(
                job.out.y, at,
                finished<Shape::grouped>(job.out, WholeSumOf<x_type, Shape::grouped>(sum), batch * job.rows + m, n));
        }
    }
}

// What differs from the base codes on each side, sorted by element numbers; values beyond the counts are not read.
struct MatmulFlips {
    const uint8_t* base;   // [n_size, k], or null: no flips
    const int64_t* index;  // [sides, capacity]
    const uint8_t* code;
    const int64_t* count;  // [sides]
    int64_t capacity;
    const void* x;  // [x rows, k], as given
    int64_t k;
    int32_t mul;  // of q = mul * code + add
};

struct SumJob {
    const void* parts;  // [splits, part_rows, n_size]
    int64_t splits;     // 0: all sums are 0
    int64_t part_rows;
    int64_t part_stride;  // from one side's parts to the next, in rows; 0 where sides share them
    int64_t x_stride;     // the same of x
    int64_t rows;         // of a side
    MatmulFlips flips;
    MatmulOutput out;
};

constexpr int kSumColumns = 32;
constexpr int kSumRows = 32;
constexpr int kSumThreads = 256;
constexpr int kRowsApart = kSumThreads / kSumColumns;

// Position of the first of `count` sorted numbers that is not below `target`.
__device__ __forceinline__ int64_t first_at_least(const int64_t* numbers, int64_t count, int64_t target) {
    int64_t low = 0;
    while (low < count) {
        const int64_t middle = low + (count - low) / 2;
        if (numbers[middle] < target) {
            low = middle + 1;
        } else {
            count = middle;
        }
    }
    return low;
}

// What the flips of row n of the weight add to sums [rows of this thread]; q changes by mul * (new - old).
template <int x_type, bool grouped, class Sum>
__device__ __forceinline__ void add_flips(const SumJob& job, int64_t side, int64_t m0, int64_t n,
                                          Sum (&sums)[kSumRows / kRowsApart]) {
    const MatmulFlips& f = job.flips;
    const int64_t* index = f.index + side * f.capacity;
    const int64_t count = f.count[side] < f.capacity ? f.count[side] : f.capacity;
    for (int64_t i = first_at_least(index, count, n * f.k); i < count; ++i) {
        const int64_t k = index[i] - n * f.k;
        if (k < 0 || k >= f.k) {
            break;
        }
        const int32_t change =
            f.mul * (static_cast<int32_t>(f.code[side * f.capacity + i]) - static_cast<int32_t>(f.base[n * f.k + k]));
        const float a = grouped ? scale_at(job.out, n, k / (f.k / job.out.groups)) : 1.0f;
#pragma unroll
        for (int r = 0; r < kSumRows / kRowsApart; ++r) {
            const int64_t m = m0 + r * kRowsApart;
            if (m >= job.rows) {
                continue;
            }
            const int64_t at = (side * job.x_stride + m) * f.k + k;
            if constexpr (x_type == kInt8X) {
                const int32_t product = change * static_cast<const int8_t*>(f.x)[at];
                if constexpr (grouped) {
                    sums[r] += a * static_cast<float>(job.out.x_sums != nullptr ? 2 * product : product);
                } else {
                    sums[r] += product;
                }
            } else {
                const float x = x_type == kBfloat16X ? as_float(uint32_t{static_cast<const uint16_t*>(f.x)[at]} << 16)
                                                     : static_cast<const float*>(f.x)[at];
                sums[r] += static_cast<float>(change) * x * a;
            }
        }
    }
}

// y from the parts, added in the order of the splits. Grid: x over tiles of a side, y over sides.
template <int x_type, bool grouped>
__global__ void __launch_bounds__(kSumThreads) probe_matmul_sum_kernel(FOGZO_CONSTANT(SumJob) job) {
    using Part = SumOf<x_type, grouped>;
    constexpr int kMany = kSumRows / kRowsApart;
    const int64_t tiles_n = (job.out.n_size + kSumColumns - 1) / kSumColumns;
    const int64_t side = blockIdx.y;
    const int64_t n = blockIdx.x % tiles_n * kSumColumns + threadIdx.x % kSumColumns;
    const int64_t m0 = blockIdx.x / tiles_n * kSumRows + threadIdx.x / kSumColumns;
    if (n >= job.out.n_size) {
        return;
    }
    WholeSumOf<x_type, grouped> sums[kMany] = {};
#pragma unroll
    for (int r = 0; r < kMany; ++r) {
        const int64_t row = side * job.part_stride + m0 + r * kRowsApart;
        for (int64_t s = 0; s < (m0 + r * kRowsApart < job.rows ? job.splits : 0); ++s) {
            sums[r] += static_cast<const Part*>(job.parts)[(s * job.part_rows + row) * job.out.n_size + n];
        }
    }
    if (job.flips.base != nullptr) {
        add_flips<x_type, grouped>(job, side, m0, n, sums);
    }
#pragma unroll
    for (int r = 0; r < kMany; ++r) {
        const int64_t m = m0 + r * kRowsApart;
        if (m < job.rows) {
            const float y = finished<grouped>(job.out, sums[r], side * job.x_stride + m, n);
            store<x_type>(job.out.y, (side * job.rows + m) * job.out.n_size + n, y);
        }
    }
}

}  // namespace fogzo
