// How the CPU kernels walk a weight: blocks of neighbouring elements, scales, checks, threads.
#pragma once
#include <cmath>
#include <cstdint>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include "float_mode.h"
#include "fogzo/estimator.h"
#include "fogzo/shape.h"
#include "fogzo/status.h"

namespace fogzo {

constexpr int kBlock = 1024;  // elements worked on at a time; a multiple of 8, so packed bytes have one owner
constexpr int kMostThreads = 1024;

struct View {
    int64_t rows;
    int64_t cols;
    const float* scale;
    int64_t scale_rows;
    int64_t scale_cols;

    int64_t size() const { return rows * cols; }
};

// A run of n elements from (row, col); `first` counts them in row-major order. In a flat walk a
// block may cross the ends of rows, else it stays in one.
struct Block {
    int64_t row;
    int64_t col;
    int64_t first;
    int n;
};

struct Walk {
    int64_t rows;
    int64_t cols;
    int64_t blocks;
    bool flat;

    Block at(int64_t index) const {
        if (flat) {
            const int64_t first = index * kBlock;
            const int64_t left = rows * cols - first;
            return {first / cols, first % cols, first, static_cast<int>(left < kBlock ? left : kBlock)};
        }
        const int64_t per_row = (cols + kBlock - 1) / kBlock;
        const int64_t row = index / per_row;
        const int64_t col = index % per_row * kBlock;
        const int64_t left = cols - col;
        return {row, col, row * cols + col, static_cast<int>(left < kBlock ? left : kBlock)};
    }
};

inline Walk make_walk(const View& view, bool flat) {
    const int64_t lines = flat ? 1 : view.rows;
    const int64_t width = flat ? view.size() : view.cols;
    return {view.rows, view.cols, lines * ((width + kBlock - 1) / kBlock), flat};
}

// body(i, count, a) for each run of a block's elements that share the scale a.
template <class Body> void each_scale(const View& view, const Block& block, Body body) {
    if (view.scale_rows * view.scale_cols == 1) {
        body(0, block.n, view.scale[0]);
        return;
    }
    const int64_t group = view.cols / view.scale_cols;
    int64_t row = block.row;
    int64_t col = block.col;
    for (int i = 0; i < block.n;) {
        const int64_t to_end = group - col % group;
        const int count = static_cast<int>(to_end < block.n - i ? to_end : block.n - i);
        body(i, count, view.scale[(view.scale_rows > 1 ? row : 0) * view.scale_cols + col / group]);
        i += count;
        col += count;
        if (col == view.cols) {
            col = 0;
            ++row;
        }
    }
}

// body(first, last) over disjoint ranges of blocks, in threads where the work is worth them.
template <class Body> void each_range(int64_t blocks, int threads, Body body) {
#if defined(_OPENMP)
    const int64_t worth = blocks / 8;
    const int most = threads < kMostThreads ? threads : kMostThreads;
    const int count = static_cast<int>(most < worth ? most : worth);
    if (count > 1) {
#pragma omp parallel num_threads(count)
        {
            const FloatMode mode;
            const int64_t id = omp_get_thread_num();
            const int64_t team = omp_get_num_threads();
            const int64_t share = blocks / team;
            const int64_t extra = blocks % team;
            const int64_t first = id * share + (id < extra ? id : extra);
            body(first, first + share + (id < extra ? 1 : 0));
        }
        return;
    }
#else
    (void)threads;
#endif
    const FloatMode mode;
    body(int64_t(0), blocks);
}

inline int thread_count(int threads) { return threads < 1 ? 1 : threads > kMostThreads ? kMostThreads : threads; }

// body(index, thread) for every index, in threads where there are several.
template <class Body> void each_index(int64_t count, int threads, Body body) {
    const int team = static_cast<int>(threads < count ? threads : count);
#if defined(_OPENMP)
    if (team > 1) {
#pragma omp parallel num_threads(team)
        {
            const FloatMode mode;
#pragma omp for schedule(static)
            for (int64_t i = 0; i < count; ++i) {
                body(i, omp_get_thread_num());
            }
        }
        return;
    }
#endif
    const FloatMode mode;
    for (int64_t i = 0; i < count; ++i) {
        body(i, 0);
    }
}

// part(first, last) over disjoint ranges of blocks, as many of them whatever the threads, put together from 0 on.
template <class Part, class Both> double fold_parts(int64_t blocks, int threads, Part part, Both both) {
    constexpr int64_t parts = 64;
    const int64_t per_part = (blocks + parts - 1) / parts;
    double found[parts] = {};
    each_range(parts, blocks < 8 * parts ? 1 : threads, [&](int64_t first, int64_t last) {
        for (int64_t p = first; p < last; ++p) {
            const int64_t end = (p + 1) * per_part;
            found[p] = part(p * per_part < blocks ? p * per_part : blocks, end < blocks ? end : blocks);
        }
    });
    double all = 0.0;
    for (const double one : found) {
        all = both(all, one);
    }
    return all;
}

template <class Part> double sum_of_parts(int64_t blocks, int threads, Part part) {
    return fold_parts(blocks, threads, part, [](double a, double b) { return a + b; });
}

// Sizes whose float32 array of `copies` views fits in an int64 of bytes, and scales that fit the view.
inline int check_view(const View& view, int64_t copies) {
    const int status = check_shape(view.rows, view.cols, view.scale, view.scale_rows, view.scale_cols, copies);
    if (status != FOGZO_OK || view.size() == 0) {
        return status;
    }
    for (int64_t i = 0; i < view.scale_rows * view.scale_cols; ++i) {
        if (!(view.scale[i] >= kSmallestScale) || std::isinf(view.scale[i])) {
            return FOGZO_BAD_SCALE_VALUE;
        }
    }
    return FOGZO_OK;
}

inline bool is_gamma(double gamma) { return gamma >= 0.0 && gamma <= 1.0; }

}  // namespace fogzo
