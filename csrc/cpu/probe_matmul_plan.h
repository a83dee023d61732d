// What a call of probe_matmul works on: sizes, runs of k, and the arrays in its workspace.
#pragma once
#include "fogzo/status.h"
#include "probe_matmul.h"
#include "view.h"

namespace fogzo {

enum XType : int { kFloat32 = 0, kBfloat16 = 1, kInt8 = 2 };

constexpr int64_t kRunCodes = 1024;     // of k in one int8 run of single bytes; with kPanel rows 16 KiB
constexpr int64_t kPairCodes = 768;     // of k in one of two bytes; with kPanel rows 24 KiB
constexpr int64_t kFloatCodes = 256;    // of k in one float32 run; with kPanel rows 16 KiB
constexpr int64_t kExactCodes = 30720;  // of k whose sum of x * 2 value fits in 32 bits; whole runs
constexpr int64_t kInt8Rows = 256;      // rows of x that meet one panel
constexpr int64_t kFloatRows = 240;
constexpr int64_t kTaskPanels = 8;
constexpr int64_t kThinK = 32;            // of k from which on a panel of few columns is made thin
constexpr int64_t kRowsWorthReading = 8;  // of x: with fewer, reading codes first costs what fours save

struct Sizes {
    int64_t x_sides;
    int64_t code_sides;
    int64_t rows;
    View weight;
    int x_type;
    int bits;   // stored
    Form form;  // int8
    int threads;

    int64_t sides() const { return x_sides > code_sides ? x_sides : code_sides; }
    int64_t run_codes() const { return x_type != kInt8 ? kFloatCodes : form == Form::kPairs ? kPairCodes : kRunCodes; }
    int64_t group() const { return weight.cols / weight.scale_cols; }
    int64_t runs() const { return weight.scale_cols * ((group() + run_codes() - 1) / run_codes()); }
    int64_t row_bytes() const { return (weight.cols * bits + 7) / 8; }
};

// The arrays in the workspace, each from a multiple of 64 bytes on.
struct Workspace {
    Stretch* runs;
    int8_t* packed;  // int8: [x rows, pitch]
    int64_t pitch;
    int32_t* x_shifts;  // int8: [x rows, runs]
    float* x;           // bfloat16: [x rows, K]
    float* y;           // bfloat16: [sides, rows, N]
    uintptr_t scratch;  // a part for each thread
    int64_t scratch_bytes;
    int64_t bytes;
};

// What a thread keeps for itself.
struct Scratch {
    uint8_t* codes;    // int8: a panel
    int32_t* surplus;  // int8 but kCodes: [runs, kPanel]
    float* values;     // float32: a panel
    float* scales;     // [scale_cols, kPanel]
    float* bias;       // [kPanel]
    int32_t* sums;     // [kInt8Rows, kPanel]
    float* totals;
    int64_t bytes;
};

// Hands out one array after the other; address 0 only counts bytes. Sizes were checked before.
struct Arena {
    uintptr_t base;
    int64_t used;

    template <class T> T* take(int64_t count) {
        T* at = reinterpret_cast<T*>(base + static_cast<uintptr_t>(used));
        used += (count * static_cast<int64_t>(sizeof(T)) + 63) / 64 * 64;
        return at;
    }
};

inline int64_t steps_of(const Sizes& z, int64_t codes) {
    return z.bits == 8 ? (codes + 7) / 8 * 2 : (codes * z.bits + 31) / 32 * (8 / z.bits);
}

// Runs are never longer than run_codes, and the steps of those that share a panel no more than this.
inline int64_t panel_steps(const Sizes& z) {
    const int64_t longest = z.group() < z.run_codes() ? z.group() : z.run_codes();
    const int64_t one = steps_of(z, longest);
    const int64_t whole = z.run_codes() / 4;
    return one > whole ? one : whole;
}

inline Scratch make_scratch(const Sizes& z, uintptr_t base) {
    Arena arena = {base, 0};
    Scratch s = {};
    if (z.x_type == kInt8) {
        s.codes = arena.take<uint8_t>(panel_steps(z) * 4 * kPanel * number_bytes(z.form));
        s.surplus = arena.take<int32_t>(z.form == Form::kCodes ? 0 : z.runs() * kPanel);
        s.sums = arena.take<int32_t>(kInt8Rows * kPanel);
        s.totals = arena.take<float>(kInt8Rows * kPanel);
    } else {
        s.values = arena.take<float>(kFloatCodes * kPanel);
    }
    s.scales = arena.take<float>(z.weight.scale_cols * kPanel);
    s.bias = arena.take<float>(kPanel);
    s.bytes = arena.used;
    return s;
}

inline Workspace make_workspace(const Sizes& z, uintptr_t base) {
    const int64_t x_rows = z.x_sides * z.rows;
    Arena arena = {base, 0};
    Workspace w = {};
    w.runs = arena.take<Stretch>(z.runs());
    if (z.x_type == kInt8) {
        const int64_t whole = z.group() / z.run_codes() * steps_of(z, z.run_codes());
        const int64_t steps = whole + steps_of(z, z.group() % z.run_codes());
        w.pitch = 4 * number_bytes(z.form) * z.weight.scale_cols * steps;
        w.packed = arena.take<int8_t>(x_rows * w.pitch);
        w.x_shifts = arena.take<int32_t>(x_rows * z.runs());
    } else if (z.x_type == kBfloat16) {
        w.x = arena.take<float>(x_rows * z.weight.cols);
        w.y = arena.take<float>(z.sides() * z.rows * z.weight.rows);
    }
    w.scratch_bytes = make_scratch(z, 0).bytes;
    w.scratch = reinterpret_cast<uintptr_t>(arena.take<char>(w.scratch_bytes * z.threads));
    w.bytes = arena.used;
    return w;
}

// Bounded products: what make_workspace multiplies fits in 63 bits where this holds.
inline int check_sizes(const Sizes& z) {
    constexpr int64_t limit = int64_t(1) << 40;
    const int64_t padded = 32;
    int64_t n = 0;
    if (z.rows < 0 || z.x_sides < 0 || z.code_sides < 0 || z.weight.rows < 0 || z.weight.cols < 0 ||
        (z.x_sides != z.code_sides && z.x_sides != 1 && z.code_sides != 1)) {
        return FOGZO_BAD_SIZE;
    }
    if (__builtin_mul_overflow(z.x_sides, z.rows, &n) || __builtin_mul_overflow(n, z.weight.cols, &n) ||
        __builtin_mul_overflow(n, padded, &n) || n > limit) {
        return FOGZO_BAD_SIZE;
    }
    if (__builtin_mul_overflow(z.sides(), z.rows, &n) || __builtin_mul_overflow(n, z.weight.rows, &n) || n > limit ||
        __builtin_mul_overflow(z.code_sides, z.weight.rows, &n) || __builtin_mul_overflow(n, z.weight.cols, &n) ||
        n > limit || z.rows > limit || z.weight.rows > limit || z.weight.cols > limit) {
        return FOGZO_BAD_SIZE;
    }
    if (z.x_type < kFloat32 || z.x_type > kInt8) {
        return FOGZO_BAD_TYPE;
    }
    return z.bits == 1 || z.bits == 2 || z.bits == 4 || z.bits == 8 ? FOGZO_OK : FOGZO_BAD_BITS;
}

inline void make_runs(const Sizes& z, Stretch* runs) {
    int64_t step = 0;
    for (int64_t g = 0; g < z.weight.scale_cols; ++g) {
        for (int64_t k = 0; k < z.group(); k += z.run_codes()) {
            const int64_t left = z.group() - k;
            const int64_t count = left < z.run_codes() ? left : z.run_codes();
            const bool closes = count == left || (k + count) % kExactCodes == 0;
            *runs++ = {g * z.group() + k, count, g, step, steps_of(z, count), closes};
            step += runs[-1].steps;
        }
    }
}

inline Sizes make_sizes(int64_t x_sides, int64_t code_sides, int64_t rows, const View& weight, int x_type, int bits,
                        Form form, int threads) {
    return {x_sides, code_sides, rows, weight, x_type, bits, form, thread_count(threads)};
}

}  // namespace fogzo
