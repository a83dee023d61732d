// Portable probe_matmul: the same panels and packed rows, one number at a time.
#include "probe_matmul.h"

namespace fogzo {
namespace {

// Step s, byte j of a word's panel holds its code j * (8 / bits) + s.
void int8_panel(const CodeRows& codes, const Stretch& run, uint8_t mask, Form, uint8_t* panel, int32_t*) {
    const int bits = codes.bits;
    const int steps = 8 / bits;
    const int per_word = 32 / bits;
    for (int n = 0; n < kPanel; ++n) {
        for (int64_t w = 0; w * steps < run.steps; ++w) {
            const uint32_t word = code_word(codes.row[n], run, bits, w);
            for (int i = 0; i < per_word; ++i) {
                const uint32_t code = (word >> (i * bits)) & mask & ((1u << bits) - 1u);
                const int64_t at = ((w * steps + i % steps) * kPanel + n) * 4 + i / steps;
                panel[at] = static_cast<uint8_t>(code);
            }
        }
    }
}

XSums pack_int8(const int8_t* x, const Stretch& run, int bits, Form, int8_t* out) {
    const int steps = 8 / bits;
    const int per_word = 32 / bits;
    uint32_t sum = 0;
    for (int64_t k = 0; k < run.steps * 4; ++k) {
        const int64_t word = k / per_word * per_word;
        const int i = static_cast<int>(k - word);
        const int8_t value = k < run.count ? x[run.first + k] : int8_t(0);
        sum += static_cast<uint32_t>(static_cast<int32_t>(value));
        out[word + i % steps * 4 + i / steps] = value;
    }
    return {static_cast<int32_t>(sum), 0};
}

void int8_row(const Int8Tile& t, int64_t row) {
    const int8_t* x = t.x + row * t.x_pitch;
    uint32_t sums[kPanel] = {};
    float totals[kPanel] = {};
    if (t.first_run > 0) {
        for (int n = 0; n < kPanel; ++n) {
            sums[n] = static_cast<uint32_t>(t.sums[row * kPanel + n]);
            totals[n] = t.totals[row * kPanel + n];
        }
    }
    int64_t at = 0;
    for (int64_t i = t.first_run; i < t.last_run; ++i) {
        const Stretch& run = t.runs[i];
        for (int64_t s = run.step; s < run.step + run.steps; ++s, at += 4 * kPanel) {
            for (int n = 0; n < kPanel; ++n) {
                int32_t dot = 0;
                for (int j = 0; j < 4; ++j) {
                    dot += x[4 * s + j] * t.panel[at + 4 * n + j];
                }
                sums[n] += static_cast<uint32_t>(dot);
            }
        }
        if (!run.closes) {
            continue;
        }
        const uint32_t shift = static_cast<uint32_t>(t.x_shifts[row * t.run_count + i]);
        for (int n = 0; n < kPanel; ++n) {
            const uint32_t twice = sums[n] * static_cast<uint32_t>(t.twice_step) + shift;
            totals[n] = totals[n] + static_cast<float>(static_cast<int32_t>(twice)) * t.scales[run.group * kPanel + n];
            sums[n] = 0;
        }
    }
    if (t.last_run < t.run_count) {
        for (int n = 0; n < kPanel; ++n) {
            t.sums[row * kPanel + n] = static_cast<int32_t>(sums[n]);
            t.totals[row * kPanel + n] = totals[n];
        }
        return;
    }
    for (int n = 0; n < t.valid; ++n) {
        t.y[row * t.y_pitch + n] = totals[n] * t.x_scale[row] + t.bias[n];
    }
}

void int8_tile(const Int8Tile& tile, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
        int8_row(tile, row);
    }
}

void float_panel(const CodeRows& codes, const Stretch& run, uint8_t mask, const float* scales, float step, float low,
                 float* panel) {
    const int bits = codes.bits;
    for (int n = 0; n < kPanel; ++n) {
        for (int64_t k = 0; k < run.count; ++k) {
            const int64_t bit = (run.first + k) * bits;
            const int code = (codes.row[n][bit >> 3] >> (bit & 7)) & ((1 << bits) - 1) & mask;
            panel[k * kPanel + n] = (static_cast<float>(code) * step + low) * scales[n];
        }
    }
}

void float_tile(const FloatTile& t, int64_t first, int64_t last) {
    for (int64_t row = first; row < last; ++row) {
        const float* x = t.x + row * t.x_pitch;
        float* y = t.y + row * t.y_pitch;
        float sums[kPanel] = {};
        for (int64_t k = 0; k < t.count; ++k) {
            for (int n = 0; n < kPanel; ++n) {
                sums[n] += x[k] * t.panel[k * kPanel + n];
            }
        }
        for (int n = 0; n < t.valid; ++n) {
            y[n] = sums[n] + (t.first ? t.bias[n] : y[n]);
        }
    }
}

void add_column(const float* column, float factor, int width, float* sums) {
    for (int i = 0; i < width; ++i) {
        sums[i] += factor * column[i];
    }
}

float quantize_row(const float* x, int64_t count, float q, int8_t* codes) {
    int32_t largest = 0;  // as integers the magnitudes keep their order, and NaN is the largest
    for (int64_t i = 0; i < count; ++i) {
        const int32_t size = magnitude_bits(x[i]);
        largest = size > largest ? size : largest;
    }
    float a;
    __builtin_memcpy(&a, &largest, 4);
    a /= q;
    for (int64_t i = 0; i < count; ++i) {
        codes[i] = activation_code(x[i], a, q);
    }
    return a;
}

}  // namespace

const MatmulKernels kScalarMatmul = {255, nullptr, int8_panel, pack_int8,  int8_tile,    float_panel,    float_tile,
                                     0,   nullptr, nullptr,    add_column, quantize_row, {4.3, 4.3, 5.9}};

}  // namespace fogzo
