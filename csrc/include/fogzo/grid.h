// Grids: bins x -> code 0 .. levels - 1 -> value. NaN takes code 0 on every grid.
#pragma once
#include <stdint.h>
#include <string.h>

#include "fogzo/noise.h"

namespace fogzo {

enum GridKind : int { kSign = 0, kTernary = 1, kMidTread = 2, kMidRise = 3 };

// Adding and subtracting it rounds |t| < 2^22 half to even, on every backend alike.
constexpr float kRoundToEven = 12582912.0f;

struct Grid {
    int kind;
    int levels;
    int storage_bits;  // 1, 2, 4 or 8: what pack() takes
    float v_min;
    float v_max;
    float least;  // x that clipped lets pass and that counts as inside for a scale's slope:
    float most;   // the range of the values, or what limit() says
    float low;    // of the rounded position
    float high;
    float shift;  // value = rounded position + shift
    float step;   // between values
};

FOGZO_FN bool grid_exists(int kind, int bits) {
    if (kind == kMidTread || kind == kMidRise) {
        return bits >= 2 && bits <= 8;
    }
    return kind == kSign || kind == kTernary;
}

FOGZO_FN bool surrogate_fits(int kind, int surrogate, int noise) {
    if (surrogate == kTrust) {
        return kind != kSign || noise == kPublished;
    }
    const bool for_sign = surrogate == kHardtanh || surrogate == kTanh || surrogate == kApproxSign;
    return for_sign == (kind == kSign);
}

FOGZO_FN Grid make_grid(int kind, int bits) {
    Grid grid = {};
    grid.kind = kind;
    const int half_levels = 1 << ((bits > 1 ? bits : 1) - 1);
    if (kind == kMidTread || kind == kMidRise) {
        grid.shift = kind == kMidRise ? 0.5f : 0.0f;
        grid.low = -static_cast<float>(half_levels);
        grid.high = static_cast<float>(half_levels - 1);
        grid.levels = 2 * half_levels;
        grid.step = 1.0f;
    } else {
        grid.low = -1.0f;
        grid.high = 1.0f;
        grid.levels = kind == kSign ? 2 : 3;
        grid.step = kind == kSign ? 2.0f : 1.0f;
    }
    grid.v_min = grid.low + grid.shift;
    grid.v_max = grid.high + grid.shift;
    grid.least = grid.v_min;
    grid.most = grid.v_max;
    grid.storage_bits = grid.levels <= 2 ? 1 : grid.levels <= 4 ? 2 : grid.levels <= 16 ? 4 : 8;
    return grid;
}

// The grid with -limit <= x <= limit as its inside; 0: the range of its values.
FOGZO_FN Grid limited(Grid grid, float limit) {
    grid.least = limit > 0.0f ? -limit : grid.v_min;
    grid.most = limit > 0.0f ? limit : grid.v_max;
    return grid;
}

FOGZO_FN bool is_limit(float limit, int surrogate) { return limit == 0.0f || (limit > 0.0f && surrogate == kClipped); }

FOGZO_FN int code_of(const Grid& grid, float x) {
    if (grid.kind == kSign) {
        return x >= 0.0f ? 1 : 0;
    }
    float t = x - grid.shift;
    t = t > grid.low ? t : grid.low;  // NaN compares false and becomes the lowest
    t = t < grid.high ? t : grid.high;
    const float rounded = (t + kRoundToEven) - kRoundToEven;
    return static_cast<int>(rounded - grid.low);
}

// Exact, and +0 for the value zero.
FOGZO_FN float value_of(const Grid& grid, int code) { return grid.v_min + grid.step * static_cast<float>(code); }

// 1 - tanh(x)^2 = 4 e / (1 + e)^2 with e = exp(-2 |x|), which loses nothing where tanh is near 1; 0 where
// e < exp(-87). exp(y) = 2^n exp(r): n = rne(y / ln 2), r = y - n ln 2 in two steps, the first one exact,
// and the Taylor polynomial of degree 7, whose error for |r| <= ln 2 / 2 is a tenth of a rounding.
constexpr float kLowestExponent = -87.0f;
constexpr float kPerLn2 = 1.44269504f;
constexpr float kLn2High = 0.693359375f;
constexpr float kLn2Low = -2.12194440e-4f;
constexpr int kExpTermCount = 8;
struct ExpTerms {
    float of[kExpTermCount];
};
constexpr ExpTerms kExpTerms = {{1.0f / 5040, 1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f}};

FOGZO_FN float tanh_slope(float x) {
    const float y = -2.0f * fabsf(x);
    const float shifted = y * kPerLn2 + kRoundToEven;  // n in the low bits
    const float n = shifted - kRoundToEven;
    const float r = (y - n * kLn2High) - n * kLn2Low;
    constexpr ExpTerms terms = kExpTerms;  // device code sees no array of the namespace
    float power = terms.of[0];
    for (int i = 1; i < kExpTermCount; ++i) {
        power = power * r + terms.of[i];
    }
    uint32_t bits;
    memcpy(&bits, &shifted, 4);
    bits = (bits << 23) + 0x3F800000u;
    float scale;
    memcpy(&scale, &bits, 4);
    const float e = y < kLowestExponent ? 0.0f : power * scale;  // NaN stays NaN
    const float sum = 1.0f + e;
    return (4.0f * e) / (sum * sum);
}

// grad * h'(x); masks are closed and made from the unrounded x.
FOGZO_FN float surrogate_gradient(const Grid& grid, int surrogate, float x, float grad) {
    switch (surrogate) {
    case kIdentity: return grad;
    case kClipped: return x >= grid.least && x <= grid.most ? grad : 0.0f;
    case kHardtanh: return x >= -1.0f && x <= 1.0f ? grad : 0.0f;
    case kTanh: return grad * tanh_slope(x);
    case kApproxSign: return x >= -1.0f && x <= 1.0f ? grad * (2.0f - 2.0f * fabsf(x)) : 0.0f;
    default: return fabsf(value_of(grid, code_of(grid, x)) - x) <= 0.5f ? grad : 0.0f;
    }
}

// Derivative of a * value(x) by a, as LSQ has it: value(x) - x inside, else value(x).
FOGZO_FN float scale_slope(const Grid& grid, float x) {
    const float value = x == x ? value_of(grid, code_of(grid, x)) : x;
    return x >= grid.least && x <= grid.most ? value - x : value;
}

// Q_P of the LSQ rules: max(1, 2^(b-1) - 1), b the bits that hold a code.
FOGZO_FN int positive_levels(const Grid& grid) {
    const int most = (grid.levels + 1) / 2 - 1;
    return most > 1 ? most : 1;
}

}  // namespace fogzo
