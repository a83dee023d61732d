// What each instruction set brings: one table of kernels, chosen at run time.
//
// A kernel works on a run: neighbouring elements of one tile that share the scale a. `noise` is
// B * (e u). Codes go to buffers with room for kSlack bytes behind the run, noise comes from such
// buffers; all other arrays are read and written to the last element and no further.
#pragma once
#include <stdint.h>

#include "fogzo/grid.h"
#include "tile.h"

namespace fogzo {

constexpr int kSlack = 32;

struct Run {
    const float* w;
    const float* grad;
    const float* noise;
    int n;
    float inverse;  // 1 / a
    float factor;   // a * e
    float along;    // A
};

struct PerturbKernels {
    // codes of x + d in plus and of x - d in minus, which may be null.
    void (*codes)(const Run& run, const Grid& grid, uint8_t* plus, uint8_t* minus);
    // w + a d and w - a d, not rounded; minus may be null.
    void (*moved)(const Run& run, float a, float* plus, float* minus);
    // sum [n]: D * d where first, else sum + D * d.
    void (*accumulate)(const Run& run, float difference, bool first, float* sum);
    // out [n]: sum * gain.
    void (*scaled)(const float* sum, int n, float gain, float* out);
};

struct CodeKernels {
    // codes of w / a.
    void (*quantize)(const float* w, int n, float inverse, const Grid& grid, uint8_t* codes);
    // out [n]: a * value(code).
    void (*values)(const uint8_t* codes, int n, float a, const Grid& grid, float* out);
    // bytes [ceil(n * bits / 8)].
    void (*pack)(const uint8_t* codes, int n, int bits, uint8_t* bytes);
    // codes [n] of bytes.
    void (*unpack)(const uint8_t* bytes, int n, int bits, uint8_t* codes);
    // How many of n codes differ.
    int (*differing)(const uint8_t* codes, const uint8_t* base, int n);
};

// Elements of a weight that share the scale a.
struct Weights {
    const float* w;
    const float* grad;
    int n;
    float a;
};

struct FakeQuantizeKernels {
    // out [n]: a * value(x); NaN gives NaN. out may be w.
    void (*forward)(const float* w, float* out, int n, float a, const Grid& grid);
    // grad_w [n]: grad * h'(x); may be grad. Returns the sum of float64(grad) * t over the
    // run where with_sum, else 0.
    double (*backward)(const Weights& run, const Grid& grid, int surrogate, bool with_sum, float* grad_w);
    // Sum of float64(grad * factor)^2.
    double (*square_sum)(const float* grad, int n, float factor);
    // Sum of float64(abs w); the largest abs w, NaN where one is.
    double (*abs_sum)(const float* w, int n);
    float (*abs_max)(const float* w, int n);
};

struct HadamardKernels {
    // x [m], m a power of two, in place: the rotation, times factor.
    void (*rotate)(float* x, int64_t m, float factor);
};

struct MatmulKernels;  // probe_matmul.h

struct Kernels {
    const char* name;
    const TileKernels* tile;
    const PerturbKernels* perturb;
    const CodeKernels* code;
    const FakeQuantizeKernels* fake;
    const MatmulKernels* matmul;
    const HadamardKernels* hadamard;
};

extern const PerturbKernels kScalarPerturb;
extern const CodeKernels kScalarCode;
extern const FakeQuantizeKernels kScalarFake;
extern const HadamardKernels kScalarHadamard;
#if defined(FOGZO_HAVE_AVX2)
extern const PerturbKernels kAvx2Perturb;
extern const CodeKernels kAvx2Code;
extern const FakeQuantizeKernels kAvx2Fake;
extern const HadamardKernels kAvx2Hadamard;
#endif

// The kernels in use.
const Kernels& kernels();

}  // namespace fogzo
