// Many tensors in one launch: a table of them in the launch's own arguments, so that nothing is copied to the device
// and a captured graph holds it. Blocks are numbered through all tensors; a warp takes one tile of 1024 elements.
#pragma once
#include "fogzo/cuda.h"
#include "fogzo/draw.h"
#include "four.cuh"
#include "launch.cuh"

namespace fogzo {

constexpr int kWarpsOfBlock = kThreads / 32;
constexpr int kFours = kTile / (4 * 32);        // of a thread in a tile
constexpr int64_t kMostGridBlocks = INT32_MAX;  // CUDA's limit along x
// Arguments of a kernel may take 32,764 bytes from CUDA 12.1 on, 4 KB before.
#if defined(CUDART_VERSION) && CUDART_VERSION < 12010
constexpr size_t kMostArgumentBytes = 4096;
constexpr int kMostTensors = 24;
#else
constexpr size_t kMostArgumentBytes = 32764;
#if defined(FOGZO_CUDA_ON_HOST)
constexpr int kMostTensors = 3;  // so that small tests need more than one launch
#else
constexpr int kMostTensors = 224;
#endif
#endif

// Neighbouring element numbers are one segment: the whole tensor where rows follow each other, else a row.
struct TensorRow {
    const float* w;
    const float* grad;
    Scales scales;
    void* out;
    int64_t* flip_count;
    int64_t first_block;
    int64_t blocks_of_segment;
    int64_t segment;  // elements
    int64_t pitch;    // element numbers from one segment's start to the next's
    int64_t offset;   // number of the first element
    int64_t numel;
    double radius;
    Mixture mixture;  // of the host's gamma
    uint32_t tensor;
    int surrogate;
    int grid;
    int bits;
    bool vector;  // every four elements of a tile lie at a multiple of four, in every array
};

struct Table {
    TensorRow rows[kMostTensors];
    int count;
    int64_t blocks;
};

// The row of a block: the last that begins at or before it.
template <class Row> __device__ __forceinline__ const Row& row_of(const Row* rows, int count, int64_t block) {
    int low = 0;
    int high = count;
    while (high - low > 1) {
        const int middle = (low + high) / 2;
        if (block >= rows[middle].first_block) {
            low = middle;
        } else {
            high = middle;
        }
    }
    return rows[low];
}

// The part of a tile that one thread has: fours of lanes 4 t .. 4 t + 3, 128 apart. Local element lead + k exists for
// low <= k < high.
struct TilePart {
    int64_t tile;
    int64_t lead;
    int low;
    int high;

    __device__ __forceinline__ int k_of(int four) const {
        return four * kLanes + 4 * static_cast<int>(threadIdx.x % 32);
    }
    __device__ __forceinline__ bool whole(int k) const { return k >= low && k + 4 <= high; }
    __device__ __forceinline__ bool has(int k) const { return k >= low && k < high; }
};

__device__ __forceinline__ TilePart tile_of(const TensorRow& row, int64_t block) {
    const int64_t local = block - row.first_block;
    const int64_t number = local / row.blocks_of_segment;
    const int64_t first = row.offset + number * row.pitch;
    const int64_t warp = (local - number * row.blocks_of_segment) * kWarpsOfBlock + threadIdx.x / 32;
    const int64_t tile = first / kTile + warp;
    const int64_t before = first - tile * kTile;
    const int64_t behind = before + row.segment;
    return {tile, number * row.segment - before, static_cast<int>(before > 0 ? before : 0),
            static_cast<int>(behind < 0       ? 0
                             : behind < kTile ? behind
                                              : kTile)};
}

__device__ __forceinline__ Four load_part(const float* from, const TilePart& part, int k, bool vector) {
    if (vector && part.whole(k)) {
        return load_four(from, part.lead + k, 4, true);
    }
    Four four = {};
    for (int c = 0; c < 4; ++c) {
        if (part.has(k + c)) {
            four.of[c] = from[part.lead + k + c];
        }
    }
    return four;
}

// Scales of a part, 1 where it has no element.
__device__ __forceinline__ Four scales_of_part(const Scales& scales, const TilePart& part, int k) {
    if (part.whole(k) || scales.group == 0) {
        return scales.at(part.lead + k, 4);
    }
    Four four = {{1.0f, 1.0f, 1.0f, 1.0f}};
    for (int c = 0; c < 4; ++c) {
        if (part.has(k + c)) {
            four.of[c] = scales.scale[Scales::divided(part.lead + k + c, scales.group)];
        }
    }
    return four;
}

__device__ __forceinline__ void store_part(float* to, const TilePart& part, int k, bool vector, const Four& four) {
    if (vector && part.whole(k)) {
        store_four(to, part.lead + k, 4, true, four);
        return;
    }
    for (int c = 0; c < 4; ++c) {
        if (part.has(k + c)) {
            to[part.lead + k + c] = four.of[c];
        }
    }
}

// ---- for launchers

// The draw of a tensor that a launcher checks; step is checked where the host knows it.
inline Draw draw_of(const fogzo_tensor& t, const fogzo_cuda_scalars& scalars, int noise, const float* table) {
    return {t.surrogate, noise, scalars.seed, scalars.step_at != nullptr ? 0 : scalars.step,
            t.tensor,    table, t.offset,     t.row_pitch};
}

inline int check_gamma(const fogzo_cuda_scalars& scalars) {
    return scalars.gamma_at != nullptr || (scalars.gamma >= 0.0 && scalars.gamma <= 1.0) ? FOGZO_OK : FOGZO_BAD_GAMMA;
}

inline bool scalars_aligned(const fogzo_cuda_scalars& scalars) {
    return element_aligned(scalars.seed_at, scalars.step_at, scalars.gamma_at, scalars.norm_at);
}

struct Segments {
    int64_t count;
    int64_t length;  // elements
    int64_t pitch;
    int64_t blocks;  // of one

    int64_t all_blocks() const { return count * blocks; }
};

// The segments of a tensor whose draw was checked.
inline Segments segments_of(const fogzo_tensor& t) {
    const bool flat = t.row_pitch == t.cols || t.rows == 1;
    Segments s = {flat ? 1 : t.rows, flat ? t.rows * t.cols : t.cols, flat ? 0 : t.row_pitch, 0};
    const int64_t before = s.count > 1 && s.pitch % kTile != 0 ? kTile - 1 : t.offset % kTile;
    const int64_t tiles = (before + s.length - 1) / kTile + 1;
    s.blocks = (tiles + kWarpsOfBlock - 1) / kWarpsOfBlock;
    return s;
}

// Adds a checked tensor of at least one element; false where the table, or the grid of its launch, is full.
inline bool add_row(Table& table, const fogzo_tensor& t, int noise, double gamma, bool vector) {
    const Segments s = segments_of(t);
    if (table.count == kMostTensors || table.blocks + s.all_blocks() > kMostGridBlocks) {
        return false;
    }
    TensorRow& row = table.rows[table.count++];
    row.w = t.w;
    row.grad = t.grad;
    row.scales = scales_of(t.scale, t.rows, t.cols, t.scale_rows, t.scale_cols);
    row.out = t.out;
    row.flip_count = t.flip_count;
    row.first_block = table.blocks;
    row.blocks_of_segment = s.blocks;
    row.segment = s.length;
    row.pitch = s.pitch;
    row.offset = t.offset;
    row.numel = t.rows * t.cols;
    row.radius = radius(t.surrogate, noise);
    row.mixture = make_mixture(t.surrogate, noise, gamma);
    row.tensor = static_cast<uint32_t>(t.tensor);
    row.surrogate = t.surrogate;
    row.grid = t.grid;
    row.bits = t.bits;
    row.vector = vector && s.length % 4 == 0 && s.pitch % 4 == 0 && t.offset % 4 == 0;
    table.blocks += s.all_blocks();
    return true;
}

}  // namespace fogzo
