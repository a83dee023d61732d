// A call of the perturbing launchers: its shape, its options, and repeatable arrays for it.
#pragma once
#include <cmath>
#include <vector>

#include "check.h"
#include "fogzo/cpu.h"
#include "fogzo/estimator.h"
#include "fogzo/grid.h"
#include "fogzo/pack.h"

using namespace fogzo;

struct Shape {
    int64_t rows, cols, scale_rows, scale_cols, offset, pitch;
};

// Width 1, a tile, one more, one less, primes, several threads' worth; offsets inside and across
// tiles; pitches that leave gaps; tensor, channel and group scales.
const Shape kShapes[] = {
    {1, 1, 1, 1, 0, 1},           {3, 5, 3, 1, 1023, 5},        {1, 1023, 1, 1, 1, 1023},
    {1, 1025, 1, 1, 0, 1025},     {2, 1024, 2, 8, 0, 4096},     {7, 129, 7, 3, 500, 129},
    {40, 10, 1, 1, 3, 10},        {13, 127, 13, 1, 16383, 200}, {5, 4099, 5, 1, 12345, 5000},
    {3, 20000, 3, 10, 77, 20000}, {200, 300, 200, 3, 0, 300},   {2, 17, 2, 17, kMaxElements - 100, 83},
};

struct Call {
    Shape shape;
    int kind, bits, surrogate, noise, form, sides;
    int64_t probes, first_probe;
    double gamma;
    float norm;
};

struct Arrays {
    std::vector<float> w, grad, scale, differences;
};

inline Arrays arrays_for(const Call& call) {
    const Shape& s = call.shape;
    Arrays a;
    a.w = some_weights(s.rows * s.cols, 1);
    a.grad = some_weights(s.rows * s.cols, 2);
    a.scale = some_weights(s.scale_rows * s.scale_cols, 3);
    for (float& value : a.scale) {
        value = 0.05f + std::fabs(value);
    }
    a.differences = some_weights(call.probes, 4);
    return a;
}

constexpr uint64_t kSeed = 0xFEDCBA9876543210ull;
constexpr int64_t kStep = 4000000000;
constexpr int64_t kTensor = 11;

inline float scale_of(const Call& call, const Arrays& a, int64_t r, int64_t c) {
    const Shape& s = call.shape;
    return a.scale[static_cast<size_t>((s.scale_rows > 1 ? r : 0) * s.scale_cols + c / (s.cols / s.scale_cols))];
}

inline int64_t side_bytes(const Call& call) {
    const Shape& s = call.shape;
    const int bits = make_grid(call.kind, call.bits).storage_bits;
    return call.form == 0   ? 4 * s.rows * s.cols
           : call.form == 1 ? s.rows * s.cols
                            : s.rows * packed_bytes(s.cols, bits);
}

inline int perturb(const Call& call, const Arrays& a, void* out, int64_t* flips, int threads) {
    const Shape& s = call.shape;
    return fogzo_cpu_perturb_quantize(a.w.data(), a.grad.data(), a.scale.data(), out, flips, tanh_table(), s.rows,
                                      s.cols, s.scale_rows, s.scale_cols, s.offset, s.pitch, call.kind, call.bits,
                                      call.surrogate, call.noise, call.form, call.sides, call.probes, call.first_probe,
                                      kSeed, kStep, kTensor, call.gamma, call.norm, threads);
}
