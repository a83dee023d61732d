// What a call of probe_matmul on a GPU launches: tiles, shares of k, and the arrays in its workspace.
#pragma once
#include <cuda_runtime.h>

#include "fogzo/grid.h"
#include "fogzo/status.h"
#include "probe_matmul_job.h"

namespace fogzo {

int launch_matmul_int8(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job);
int launch_matmul_bfloat16(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job);
int launch_matmul_float32(int bits, int shape, dim3 grid, void* stream, const MatmulJob& job);
int launch_matmul_wgmma(int x_type, int bits, int shape, dim3 grid, void* stream, const MatmulJob& job);

constexpr int64_t kFewMost = 32;     // rows of x up to which the tiles are of few rows; products of warps alone
constexpr int64_t kLeastSteps = 4;   // of a share of k
constexpr int64_t kMostSplits = 64;  // but as many as int32 sums need
constexpr int64_t kAlignment = 256;  // of the arrays in the workspace

struct MatmulSizes {
    int64_t x_sides;
    int64_t code_sides;
    int64_t rows;
    int64_t n;
    int64_t k;
    int64_t groups;
    int x_type;
    int bits;  // stored
    bool x_sums;
    bool flips;  // all sums go to the workspace
    bool wgmma;

    int64_t sides() const { return x_sides > code_sides ? x_sides : code_sides; }
    int64_t x_rows() const { return x_sides * rows; }
    int64_t element() const { return x_type == kInt8X ? 1 : x_type == kBfloat16X ? 2 : 4; }
    bool batched() const { return x_sides > 1 && code_sides > 1; }
    int64_t code_bytes() const { return (k * bits + 7) / 8; }
};

struct MatmulPlan {
    MatmulJob job;  // sizes alone
    int shape;
    int64_t batches;
    int64_t padded;  // k of a group in the rows that the product reads
    bool pack_x;
    bool pack_codes;
    // Where they begin in the workspace; parts where there are several shares, or flips.
    int64_t packed_x;
    int64_t packed_codes;
    int64_t x_sums;
    int64_t parts;
    bool has_parts;
    int64_t bytes;
};

inline int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

inline int64_t aligned(int64_t bytes, int64_t to) { return divide_up(bytes, to) * to; }

inline bool is_aligned(const void* pointer, uintptr_t to) { return reinterpret_cast<uintptr_t>(pointer) % to == 0; }

inline int block_rows(int x_type, int shape) {
    switch (shape) {
    case kWgmma:
    case kWgmmaGroupScale: return 128;
    case kFewRows: return 16;
    default: return shape == kManyRows && x_type == kInt8X ? 128 : 64;
    }
}

inline int block_columns(int x_type, int shape) {
    switch (shape) {
    case kWgmma: return 256;
    case kWgmmaGroupScale: return 128;
    default: return shape != kManyRows ? 64 : x_type == kInt8X ? 192 : 96;
    }
}

inline int tile_shape(const MatmulSizes& z, int64_t rows) {
    if (z.groups > 1) {
        return z.wgmma ? kWgmmaGroupScale : kGroupScale;
    }
    return z.wgmma ? kWgmma : rows <= kFewMost ? kFewRows : kManyRows;
}

// Integers of every value, doubled where the values are halves; int8 codes of 256 such values are q = code - 128
// with value = q + 1/2, for which the sums of x are needed.
inline bool needs_x_sums(const Grid& grid, int x_type) {
    return x_type == kInt8X && grid.kind == kMidRise && grid.levels == 256;
}

inline uint32_t bfloat16_pair(int value) {
    const float x = static_cast<float>(value);  // of at most eight significant bits
    uint32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits >> 16 | (bits & 0xFFFF0000u);
}

inline OperandRule operand_rule(const Grid& grid, int x_type) {
    const bool halves = grid.kind == kMidRise && !needs_x_sums(grid, x_type);
    const int mul = halves ? 2 : static_cast<int>(grid.step);
    const int add = halves ? static_cast<int>(2.0f * grid.v_min) : static_cast<int>(grid.low);
    OperandRule rule = {};
    uint32_t mask = 1;
    while (mask + 1 < static_cast<uint32_t>(grid.levels)) {
        mask = 2 * mask + 1;
    }
    rule.mask = mask * 0x01010101u;
    rule.mul = static_cast<uint32_t>(mul);
    rule.add = static_cast<uint32_t>(add + 128) * 0x01010101u;
    for (int code = 0; code < 4; ++code) {
        rule.table |= static_cast<uint32_t>((mul * code + add) & 0xFF) << (8 * code);
    }
    rule.factor = bfloat16_pair(mul);
    rule.factor16 = bfloat16_pair(16 * mul);
    rule.offset = grid.levels <= 16 ? bfloat16_pair(add - 16 * mul) : 0;
    rule.offset0 = bfloat16_pair(add);
    return rule;
}

inline int check_sizes(const MatmulSizes& z) {
    constexpr int64_t limit = int64_t(1) << 40;
    int64_t size = 0;
    if (z.rows < 0 || z.x_sides < 0 || z.code_sides < 0 || z.n < 0 || z.k < 0 || z.k >= int64_t(1) << 31 ||
        (z.x_sides != z.code_sides && z.x_sides != 1 && z.code_sides != 1)) {
        return FOGZO_BAD_SIZE;
    }
    if (__builtin_mul_overflow(z.x_sides, z.rows, &size) || __builtin_mul_overflow(size, z.k, &size) || size > limit ||
        __builtin_mul_overflow(z.sides(), z.rows, &size) || __builtin_mul_overflow(size, z.n, &size) || size > limit ||
        __builtin_mul_overflow(z.code_sides, z.n, &size) || __builtin_mul_overflow(size, z.k, &size) || size > limit ||
        z.rows > limit || z.n > limit || z.x_sides > limit || z.code_sides > limit) {
        return FOGZO_BAD_SIZE;
    }
    if (z.x_type < kFloat32X || z.x_type > kInt8X) {
        return FOGZO_BAD_TYPE;
    }
    if (z.bits != 1 && z.bits != 2 && z.bits != 4 && z.bits != 8) {
        return FOGZO_BAD_BITS;
    }
    return z.k > 0 && (z.groups < 1 || z.k % z.groups != 0) ? FOGZO_BAD_SCALE_SHAPE : FOGZO_OK;
}

// For sizes that were checked and hold work; of the pointers only the alignment counts. FOGZO_BAD_SIZE where CUDA
// has no grid of so many tiles.
inline int make_plan(const MatmulSizes& z, const void* x, const void* codes, int processors, MatmulPlan* plan) {
    *plan = {};
    MatmulJob& job = plan->job;
    const int64_t width = z.k / z.groups;
    plan->padded = z.groups > 1 ? aligned(width, kSpan) : width;
    const bool spread = plan->padded != width;
    plan->pack_x = spread || z.k * z.element() % 16 != 0 || !is_aligned(x, 16);
    plan->pack_codes = spread || z.code_bytes() % 16 != 0 || !is_aligned(codes, 16);
    const int64_t k = plan->padded * z.groups;
    job.x_pitch = aligned(k * z.element(), 16);
    job.code_pitch = aligned(divide_up(k * z.bits, 8), 16);
    const bool one = z.code_sides == 1;  // all rows of x meet the same codes
    job.rows = z.batched() || !one ? z.rows : z.x_rows();
    job.x_rows = z.x_rows();
    job.columns = z.batched() ? z.n : z.code_sides * z.n;
    job.x_batch = z.batched() ? z.rows : 0;
    job.code_batch = z.batched() ? z.n : 0;
    job.sides_a_batch = z.batched() ? 1 : z.code_sides;
    job.sides = z.code_sides;
    plan->batches = z.batched() ? z.code_sides : 1;

    plan->shape = tile_shape(z, job.rows);
    const int64_t tiles_m = divide_up(job.rows, block_rows(z.x_type, plan->shape));
    const int64_t tiles_n = divide_up(job.columns, block_columns(z.x_type, plan->shape));
    const int64_t steps = divide_up(k, kStep);
    const int64_t tiles = tiles_m * tiles_n * plan->batches;
    int64_t splits = 2 * processors / tiles < steps / kLeastSteps ? 2 * processors / tiles : steps / kLeastSteps;
    splits = splits < kMostSplits ? splits : kMostSplits;
    const int64_t least = z.x_type == kInt8X ? divide_up(k, kMostProducts) : 1;
    splits = splits < least ? least : splits;
    const int64_t each = divide_up(steps, splits);
    if (tiles_m > INT32_MAX / 2 || tiles_n > INT32_MAX / kBand || tiles_m * tiles_n > INT32_MAX ||
        plan->batches > 65535 || steps > INT32_MAX / 4) {
        return FOGZO_BAD_SIZE;
    }
    job.tiles_m = static_cast<int>(tiles_m);
    job.tiles_n = static_cast<int>(tiles_n);
    job.steps_a_split = static_cast<int>(each);
    job.splits = static_cast<int>(divide_up(steps, each));
    job.spans = static_cast<int>(divide_up(k, kSpan));
    job.spans_a_group = z.groups > 1 ? static_cast<int>(plan->padded / kSpan) : job.spans;

    int64_t used = 0;
    const auto take = [&used](bool wanted, int64_t bytes) {
        const int64_t at = used;
        used += wanted ? aligned(bytes, kAlignment) : 0;
        return at;
    };
    plan->has_parts = job.splits > 1 || z.flips;
    plan->packed_x = take(plan->pack_x, z.x_rows() * job.x_pitch);
    plan->packed_codes = take(plan->pack_codes, z.code_sides * z.n * job.code_pitch);
    plan->x_sums = take(z.x_sums, z.x_rows() * z.groups * 4);
    plan->parts = take(plan->has_parts, job.splits * job.sides * job.rows * z.n * 4);
    plan->bytes = used > 0 ? used + kAlignment - 1 : 0;
    return FOGZO_OK;
}

}  // namespace fogzo
