// The parts of probe_matmul that each instruction set brings; the launcher holds all policy.
//
// Codes are read as little-endian words of 32 bits along k: word w of a row holds 32 / bits codes. A
// panel holds kPanel rows of W, repacked so that the rows lie beside each other.
#pragma once
#include <stdint.h>

#include "fogzo/grid.h"
#include "fogzo/macros.h"

namespace fogzo {

constexpr int kPanel = 16;
constexpr int kColumn = 64;  // rows of x that a flip is applied to at once, at most

// What int8 panels and packed rows hold, and multiply. All of it is exact.
enum class Form {
    kCodes,  // a byte each: codes and x
    kFours,  // a byte each: w = code - middle and x + 128, where |w| of any four k that 16 bits add is at most 128
    kPairs,  // two bytes each: codes and x, of which products of pairs are taken (see XSums)
};

FOGZO_FN constexpr int number_bytes(Form form) { return form == Form::kPairs ? 2 : 1; }
FOGZO_FN constexpr int middle_of(int mask) { return (mask + 1) / 2; }

// A run of k inside one scale group. For int8 it begins at a word of its own, padded with zeros.
struct Stretch {
    int64_t first;  // k
    int64_t count;
    int64_t group;
    int64_t step;   // where it begins in a packed row, in steps of 4 k
    int64_t steps;  // whole words of them, of 8 bits two and two
    bool closes;    // sums are scaled and added to the total behind it
};

// Where a panel's codes come from: kPanel rows of packed bytes, those behind `valid` being repeats.
struct CodeRows {
    const uint8_t* row[kPanel];
    int bits;  // stored: 1, 2, 4 or 8
};

// int8 rows against one panel: y = x_scale * (sum over groups of scale * sum of x * value) + bias.
// A panel serves runs first_run .. last_run - 1; sums are carried from one to the next.
struct Int8Tile {
    const int8_t* x;  // [rows, x_pitch], packed; x_pitch in bytes
    int64_t x_pitch;
    const int32_t* x_shifts;  // [rows, runs]: what a row adds to twice_step * sums where a run closes
    const float* x_scale;     // [rows]
    const uint8_t* panel;     // [steps, kPanel, 4 numbers]
    Form form;
    const int32_t* surplus;  // not kCodes: [runs, kPanel], what a run's sums hold beside x * code, by column
    int64_t narrow_steps;    // kCodes: as many as keep sums of pairs in 16 bits; whole turns of four
    const Stretch* runs;
    int64_t run_count;
    int64_t first_run;
    int64_t last_run;
    const float* scales;  // [groups, kPanel], halved
    const float* bias;    // [kPanel]
    int32_t twice_step;   // 2 value = twice_step * code + a constant, which is in x_shifts
    int32_t* sums;        // [rows, kPanel], carried
    float* totals;        // [rows, kPanel], carried
    float* y;             // [rows, y_pitch]
    int64_t y_pitch;
    int valid;  // columns of y to write
};

// float32 rows against one panel of dequantized weights; a thin one is laid out as thin_panel says.
struct FloatTile {
    const float* x;  // [rows, x_pitch]
    int64_t x_pitch;
    const float* panel;  // [count, kPanel]
    int64_t count;
    const float* bias;  // [kPanel], added where first; else y is added to
    bool first;
    float* y;  // [rows, y_pitch]
    int64_t y_pitch;
    int valid;
};

// Sums over a run of a row of x. Products of pairs are half as many:
// (x0 + c1) (x1 + c0) = x0 c0 + x1 c1 + x0 x1 + c0 c1, where the last two are known before.
struct XSums {
    int32_t x;
    int32_t pairs;  // kPairs: sum of x0 * x1, else 0
};

struct MatmulKernels {
    // Form::kCodes takes codes up to this.
    int most_narrow_code;
    // Whether the first `count` codes at a row, one a byte, suit Form::kFours; unused where 255 is narrow.
    bool (*fours_fit)(const uint8_t* row, int64_t count, uint8_t mask);
    // panel [steps, kPanel, 4 numbers]: codes of one run, with mask; surplus [kPanel] as in Int8Tile.
    void (*int8_panel)(const CodeRows& codes, const Stretch& run, uint8_t mask, Form form, uint8_t* panel,
                       int32_t* surplus);
    // out [steps, 4 numbers]: a run of x in the order of the panel's k, zeros behind.
    XSums (*pack_int8)(const int8_t* x, const Stretch& run, int bits, Form form, int8_t* out);
    // Rows first .. last - 1.
    void (*int8_tile)(const Int8Tile& tile, int64_t first, int64_t last);
    // panel [count, kPanel]: scale * (step * code + low) of one run; scales [kPanel].
    void (*float_panel)(const CodeRows& codes, const Stretch& run, uint8_t mask, const float* scales, float step,
                        float low, float* panel);
    void (*float_tile)(const FloatTile& tile, int64_t first, int64_t last);
    // Panels of up to most_thin columns may be made thin, each column's k beside each other: panel [ceil(count / 8),
    // kPanel, 8] of one run that begins at a multiple of 8, the first `valid` columns written, with zeros behind the
    // last k.
    int most_thin;
    void (*thin_panel)(const CodeRows& codes, int valid, const Stretch& run, uint8_t mask, const float* scales,
                       float step, float low, float* panel);
    void (*thin_tile)(const FloatTile& tile, int64_t first, int64_t last);
    // sums [width] += factor * column [width]; width: whole eights.
    void (*add_column)(const float* column, float factor, int width, float* sums);
    // codes [count]: clamp(rne(x / a), -q, q), 0 where that is NaN; returns a = max abs x / q.
    float (*quantize_row)(const float* x, int64_t count, float q, int8_t* codes);
    // Measured: what a product of narrow codes, of wider ones and of float32 takes in a large call, in lanes of
    // add_column.
    double product_cost[3];
};

extern const MatmulKernels kScalarMatmul;
#if defined(FOGZO_HAVE_AVX2)
extern const MatmulKernels kAvx2Matmul;
extern const MatmulKernels kVnniMatmul;
#endif

// Word w of a run, its codes behind the run's end zero.
static inline __attribute__((always_inline)) uint32_t code_word(const uint8_t* row, const Stretch& run, int bits,
                                                                int64_t word) {
    const int per_word = 32 / bits;
    const int64_t left = run.count - word * per_word;
    const int count = left < per_word ? static_cast<int>(left) : per_word;
    uint32_t result = 0;
    for (int i = 0; i < count; ++i) {
        const int64_t bit = (run.first + word * per_word + i) * bits;
        const uint32_t code = (static_cast<uint32_t>(row[bit >> 3]) >> (bit & 7)) & ((1u << bits) - 1u);
        result |= code << (i * bits);
    }
    return result;
}

static inline __attribute__((always_inline)) int32_t magnitude_bits(float x) {
    int32_t bits;
    __builtin_memcpy(&bits, &x, 4);
    return bits & 0x7FFFFFFF;
}

// clamp(rne(x / a), -q, q) with q < 2^22; 0 where x / a is NaN.
static inline __attribute__((always_inline)) int8_t activation_code(float x, float a, float q) {
    float t = x / a;
    if (t != t) {
        return 0;
    }
    t = t > -q ? t : -q;
    t = t < q ? t : q;
    return static_cast<int8_t>((t + kRoundToEven) - kRoundToEven);
}

}  // namespace fogzo
