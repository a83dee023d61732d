#include "fogzo/cuda.h"
#include "probe_matmul_finish.cuh"
#include "probe_matmul_pack.cuh"
#include "probe_matmul_plan.h"

using namespace fogzo;

namespace {

constexpr int64_t kMostRows = 1 << 15;  // of a grid along y, below CUDA's limit of 65535
constexpr int64_t kMostSides = 65535;   // of parts: the limit itself
#if defined(FOGZO_HAVE_WGMMA)
constexpr bool kHaveWgmma = true;
#else
constexpr bool kHaveWgmma = false;
#endif

// Multiprocessors of the current device, 0 where there is none.
int processors() {
    int device = 0;
    int count = 0;
    if (!succeeded(cudaGetDevice(&device)) ||
        !succeeded(cudaDeviceGetAttribute(&count, cudaDevAttrMultiProcessorCount, device))) {
        return 0;
    }
    return count;
}

// Whether the current device has the instructions of compute capability 9.0, which no other has.
bool has_wgmma() {
    int device = 0;
    int major = 0;
    int minor = 0;
    return kHaveWgmma && succeeded(cudaGetDevice(&device)) &&
           succeeded(cudaDeviceGetAttribute(&major, cudaDevAttrComputeCapabilityMajor, device)) &&
           succeeded(cudaDeviceGetAttribute(&minor, cudaDevAttrComputeCapabilityMinor, device)) && major == 9 &&
           minor == 0;
}

struct Call {
    const void* x;
    const float* x_scale;
    const uint8_t* codes;
    const float* scale;
    const float* bias;
    void* y;
    void* workspace;
    int64_t workspace_bytes;
    int64_t scale_rows;
    Grid grid;
    MatmulFlips flips;  // base null: none
    int64_t flip_sides;
    void* stream;
};

template <class T> int pack_x(const PackJob& job, dim3 grid, void* stream) {
    return launch<probe_matmul_pack_x_kernel<T>>(grid, kPackThreads, 0, stream, job);
}

int pack(const MatmulSizes& z, const MatmulPlan& plan, bool codes, const void* from, void* to, void* stream) {
    PackJob job = {from, to, codes ? z.code_sides * z.n : z.x_rows(), z.groups, z.k / z.groups, plan.padded, 0, 0, 0};
    job.pitch = codes ? plan.job.code_pitch : plan.job.x_pitch;
    job.from_pitch = codes ? z.code_bytes() : z.k * z.element();
    job.bits = z.bits;
    const int64_t wide = divide_up(codes ? job.pitch : job.pitch / z.element(), kPackThreads);
    const dim3 grid(static_cast<unsigned>(wide), static_cast<unsigned>(job.rows < kMostRows ? job.rows : kMostRows));
    if (codes) {
        return launch<probe_matmul_pack_codes_kernel>(grid, kPackThreads, 0, stream, job);
    }
    return z.element() == 1   ? pack_x<uint8_t>(job, grid, stream)
           : z.element() == 2 ? pack_x<uint16_t>(job, grid, stream)
                              : pack_x<uint32_t>(job, grid, stream);
}

int add_parts(const MatmulSizes& z, bool grouped, const SumJob& job, int64_t sides, void* stream) {
    const int64_t tiles = divide_up(job.out.n_size, kSumColumns) * divide_up(job.rows, kSumRows);
    if (tiles > INT32_MAX || sides > kMostSides) {
        return FOGZO_BAD_SIZE;
    }
    const dim3 grid(static_cast<unsigned>(tiles), static_cast<unsigned>(sides));
    switch (z.x_type) {
    case kInt8X:
        return grouped ? launch<probe_matmul_sum_kernel<kInt8X, true>>(grid, kSumThreads, 0, stream, job)
                       : launch<probe_matmul_sum_kernel<kInt8X, false>>(grid, kSumThreads, 0, stream, job);
    case kBfloat16X:
        return grouped ? launch<probe_matmul_sum_kernel<kBfloat16X, true>>(grid, kSumThreads, 0, stream, job)
                       : launch<probe_matmul_sum_kernel<kBfloat16X, false>>(grid, kSumThreads, 0, stream, job);
    default:
        return grouped ? launch<probe_matmul_sum_kernel<kFloat32X, true>>(grid, kSumThreads, 0, stream, job)
                       : launch<probe_matmul_sum_kernel<kFloat32X, false>>(grid, kSumThreads, 0, stream, job);
    }
}

// y = bias: a product of no terms.
int without_terms(const MatmulSizes& z, const Call& c, int64_t sides) {
    SumJob job = {};
    job.rows = z.rows;
    job.out = {c.y, nullptr, nullptr, c.bias, nullptr, 1.0f, 1, 1, z.n};
    return add_parts(z, true, job, sides, c.stream);
}

int multiply(const MatmulSizes& z, const Call& c, const MatmulPlan& plan) {
    char* base = nullptr;
    if (plan.bytes > 0) {
        const uintptr_t at = reinterpret_cast<uintptr_t>(c.workspace);
        base = static_cast<char*>(c.workspace) + ((at + kAlignment - 1) / kAlignment * kAlignment - at);
    }
    MatmulJob job = plan.job;
    job.x = static_cast<const unsigned char*>(c.x);
    job.codes = c.codes;
    if (plan.pack_x) {
        job.x = reinterpret_cast<unsigned char*>(base + plan.packed_x);
        if (const int status = pack(z, plan, false, c.x, base + plan.packed_x, c.stream)) {
            return status;
        }
    }
    if (plan.pack_codes) {
        job.codes = reinterpret_cast<unsigned char*>(base + plan.packed_codes);
        if (const int status = pack(z, plan, true, c.codes, base + plan.packed_codes, c.stream)) {
            return status;
        }
    }
    int32_t* x_sums = z.x_sums ? reinterpret_cast<int32_t*>(base + plan.x_sums) : nullptr;
    if (z.x_sums) {
        const int64_t sums = z.x_rows() * z.groups;
        const int64_t blocks = divide_up(sums, kPackThreads / 32);
        const int status =
            blocks > INT32_MAX
                ? FOGZO_BAD_SIZE
                : launch<probe_matmul_x_sums_kernel>(static_cast<unsigned>(blocks), kPackThreads, 0, c.stream,
                                                     static_cast<const int8_t*>(c.x), x_sums, sums, z.k / z.groups);
        if (status != FOGZO_OK) {
            return status;
        }
    }
    const float unit = c.grid.kind == kMidRise ? 0.5f : 1.0f;
    job.parts = plan.has_parts ? base + plan.parts : nullptr;
    job.rule = operand_rule(c.grid, z.x_type);
    job.out = {c.y, c.scale, c.x_scale, c.bias, x_sums, unit, c.scale_rows, z.groups, z.n};
    const dim3 grid(static_cast<unsigned>(job.tiles_m * job.tiles_n), static_cast<unsigned>(job.splits),
                    static_cast<unsigned>(plan.batches));
    const auto tiles = z.x_type == kInt8X       ? launch_matmul_int8
                       : z.x_type == kBfloat16X ? launch_matmul_bfloat16
                                                : launch_matmul_float32;
    const int status = z.wgmma ? launch_matmul_wgmma(z.x_type, z.bits, plan.shape, grid, c.stream, job)
                               : tiles(z.bits, plan.shape, grid, c.stream, job);
    if (status != FOGZO_OK || !plan.has_parts) {
        return status;
    }
    SumJob sum = {};
    sum.parts = job.parts;
    sum.splits = job.splits;
    sum.part_rows = job.sides * job.rows;
    sum.out = job.out;
    sum.rows = job.rows;
    sum.part_stride = job.rows;
    sum.x_stride = job.x_batch;
    if (z.flips) {
        sum.flips = c.flips;
        sum.flips.mul = static_cast<int32_t>(job.rule.mul);
        sum.rows = z.rows;
        sum.part_stride = sum.x_stride = z.x_sides > 1 ? z.rows : 0;
    }
    return add_parts(z, z.groups > 1, sum, z.flips ? c.flip_sides : job.sides, c.stream);
}

int64_t workspace_bytes(const MatmulSizes& z, const void* x, const void* codes) {
    MatmulPlan plan;
    if (check_sizes(z) != FOGZO_OK || z.x_rows() == 0 || z.code_sides * z.n == 0 || z.k == 0 ||
        make_plan(z, x, codes, processors(), &plan) != FOGZO_OK) {
        return 0;
    }
    return plan.bytes;
}

// sides: of y.
int checked(const MatmulSizes& z, const Call& c, int kind, int bits, int kernel, int64_t sides) {
    if (const int status = check_sizes(z)) {
        return status;
    }
    if ((kernel != FOGZO_MMA && kernel != FOGZO_WGMMA) || (z.wgmma && z.x_type == kFloat32X)) {
        return FOGZO_BAD_KERNEL;
    }
    if (!grid_exists(kind, bits) || c.grid.levels > (1 << z.bits)) {
        return FOGZO_BAD_GRID;
    }
    if (z.x_rows() == 0 || z.code_sides == 0 || z.n == 0 || sides == 0) {
        return FOGZO_OK;
    }
    if (c.y == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (!is_aligned(c.y, z.x_type == kBfloat16X ? 2 : 4) || !is_aligned(c.bias, 4)) {
        return FOGZO_UNALIGNED;
    }
    if (z.k == 0) {
        return without_terms(z, c, sides);
    }
    if (c.scale_rows != 1 && c.scale_rows != z.n) {
        return FOGZO_BAD_SCALE_SHAPE;
    }
    if (c.x == nullptr || c.codes == nullptr || c.scale == nullptr || (z.x_type == kInt8X && c.x_scale == nullptr)) {
        return FOGZO_NULL_POINTER;
    }
    if (!is_aligned(c.x, static_cast<uintptr_t>(z.element())) ||
        !element_aligned(c.scale, c.x_scale, c.flips.index, c.flips.count)) {
        return FOGZO_UNALIGNED;
    }
    const int count = processors();
    if (count == 0) {
        return FOGZO_NO_DEVICE;
    }
    if (z.wgmma && !has_wgmma()) {
        return FOGZO_NO_WGMMA;
    }
    MatmulPlan plan;
    if (const int status = make_plan(z, c.x, c.codes, count, &plan)) {
        return status;
    }
    if (plan.bytes > 0 && c.workspace == nullptr) {
        return FOGZO_NULL_POINTER;
    }
    if (c.workspace_bytes < plan.bytes) {
        return FOGZO_BAD_WORKSPACE;
    }
    return plan.has_parts && sides > kMostSides ? FOGZO_BAD_SIZE : multiply(z, c, plan);
}

MatmulSizes sizes_of(int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols,
                     int64_t scale_cols, int kind, int bits, int stored_bits, int x_type, bool flips, int kernel) {
    const bool sums = grid_exists(kind, bits) && needs_x_sums(make_grid(kind, bits), x_type);
    return {x_sides, code_sides,           rows, out_cols, cols, scale_cols, x_type, stored_bits, sums,
            flips,   kernel == FOGZO_WGMMA};
}

}  // namespace

#if !defined(FOGZO_HAVE_WGMMA)
int fogzo::launch_matmul_wgmma(int, int, int, dim3, void*, const MatmulJob&) { return FOGZO_NO_WGMMA; }
#endif

extern "C" int64_t fogzo_cuda_probe_matmul_workspace(const void* x, const uint8_t* codes, int64_t x_sides,
                                                     int64_t code_sides, int64_t rows, int64_t out_cols, int64_t cols,
                                                     int64_t scale_cols, int kind, int bits, int stored_bits,
                                                     int x_type, int kernel) {
    return workspace_bytes(
        sizes_of(x_sides, code_sides, rows, out_cols, cols, scale_cols, kind, bits, stored_bits, x_type, false, kernel),
        x, codes);
}

extern "C" int fogzo_cuda_probe_matmul(const void* x, const float* x_scale, const uint8_t* codes, const float* scale,
                                       const float* bias, void* y, void* workspace, int64_t workspace_bytes,
                                       int64_t x_sides, int64_t code_sides, int64_t rows, int64_t out_cols,
                                       int64_t cols, int64_t scale_rows, int64_t scale_cols, int kind, int bits,
                                       int stored_bits, int x_type, int kernel, void* stream) {
    const MatmulSizes z =
        sizes_of(x_sides, code_sides, rows, out_cols, cols, scale_cols, kind, bits, stored_bits, x_type, false, kernel);
    return checked(z,
                   {x,
                    x_type == kInt8X ? x_scale : nullptr,
                    codes,
                    scale,
                    bias,
                    y,
                    workspace,
                    workspace_bytes,
                    scale_rows,
                    make_grid(kind, bits),
                    {},
                    0,
                    stream},
                   kind, bits, kernel, z.sides());
}

extern "C" int64_t fogzo_cuda_probe_matmul_flips_workspace(const void* x, const uint8_t* base, int64_t x_sides,
                                                           int64_t rows, int64_t out_cols, int64_t cols,
                                                           int64_t scale_cols, int kind, int bits, int x_type,
                                                           int kernel) {
    return workspace_bytes(sizes_of(x_sides, 1, rows, out_cols, cols, scale_cols, kind, bits, 8, x_type, true, kernel),
                           x, base);
}

extern "C" int fogzo_cuda_probe_matmul_flips(const void* x, const float* x_scale, const uint8_t* base,
                                             const int64_t* index, const uint8_t* code, const int64_t* count,
                                             int64_t capacity, const float* scale, const float* bias, void* y,
                                             void* workspace, int64_t workspace_bytes, int64_t x_sides, int64_t sides,
                                             int64_t rows, int64_t out_cols, int64_t cols, int64_t scale_rows,
                                             int64_t scale_cols, int kind, int bits, int x_type, int kernel,
                                             void* stream) {
    const MatmulSizes z = sizes_of(x_sides, 1, rows, out_cols, cols, scale_cols, kind, bits, 8, x_type, true, kernel);
    int64_t size = 0;
    if (sides < 0 || capacity < 0 || (x_sides != 1 && x_sides != sides) || __builtin_mul_overflow(sides, rows, &size) ||
        __builtin_mul_overflow(size, out_cols, &size) || size > int64_t(1) << 40) {
        return FOGZO_BAD_SIZE;
    }
    if (sides > 0 && (count == nullptr || (capacity > 0 && (index == nullptr || code == nullptr)))) {
        return FOGZO_NULL_POINTER;
    }
    return checked(z,
                   {x,
                    x_type == kInt8X ? x_scale : nullptr,
                    base,
                    scale,
                    bias,
                    y,
                    workspace,
                    workspace_bytes,
                    scale_rows,
                    make_grid(kind, bits),
                    {base, index, code, count, capacity, x, cols, 0},
                    sides,
                    stream},
                   kind, bits, kernel, sides);
}
